"""ONNX Runtime with dynamic int8: weights of matrix products quantised per output channel, activations per call."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.sharpen.int8 import here
from gnomon.sharpen.passes import onnx_export
from gnomon.spec.task import Task
from gnomon.workload.program import Program


class OnnxInt8:
    name = "onnx-int8"
    title = "ONNX Runtime, dynamic int8"
    description = (
        "The exported model with int8 weights, one scale per output channel, and activations that are rounded to int8 "
        "in each call. Per channel costs no time and most of the accuracy that one scale per tensor loses."
    )
    # signed weights: unsigned ones get a zero point per channel, for which ONNX Runtime has no fast kernel (2x slower)
    options: Mapping[str, Any] = {"per_channel": True, "weight_type": "QInt8", "operators": ["MatMul", "Gemm"]}
    beside: Mapping[str, Mapping[str, Any]] = {}

    def why_not(self, task: Task, program: Program | None) -> str | None:
        reason = onnx_export.why_not(task, program, ("onnx", "onnxscript", "onnxruntime"))
        return reason if reason is not None else here().why_not

    def prepare(self, program: Program, options: Mapping[str, Any], artifacts: Path) -> Program:
        if options["weight_type"] not in ("QInt8", "QUInt8"):
            raise UsageError(
                f"option weight_type of recipe 'onnx-int8' is {options['weight_type']!r}; known: QInt8, QUInt8"
            )
        # 7-bit weights where the CPU sums pairs of products in 16 bits and would saturate without a word
        reduced = here().saturates and options["weight_type"] == "QInt8"
        depends_on = onnx_export.key(program.task, reduce_range=reduced, **options)

        def make(folder: Path) -> None:
            _quantize(onnx_export.exported(program, artifacts), folder / onnx_export.FILE, options, reduced)

        path = onnx_export.cached(artifacts, "int8", depends_on, make)
        return onnx_export.run_by(onnx_export.loaded(path, program.task.threads), program)


def _quantize(source: Path, target: Path, options: Mapping[str, Any], reduce_range: bool) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = source.with_name(source.name + ".data").exists()
    model = onnx.load(source)
    # the quantiser transposes the weights of Gemm and then trips over the shapes that the exporter noted for them
    del model.graph.value_info[:]
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a preprocessing that export has done
    try:
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=list(options["operators"]),
            per_channel=options["per_channel"],
            reduce_range=reduce_range,
            weight_type=QuantType[options["weight_type"]],
            use_external_data_format=large,
            extra_options={"MatMulConstBOnly": True},  # products of two activations (attention) stay float32
        )
    finally:
        logging.disable(level)
    if not any("Integer" in node.op_type for node in onnx.load(target, load_external_data=False).graph.node):
        raise NotRunnable(f"the model has no {' or '.join(options['operators'])} with constant weights to quantise")


recipe = OnnxInt8()
