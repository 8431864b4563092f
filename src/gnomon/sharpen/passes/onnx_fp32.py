"""ONNX Runtime in float32: the model exported once, its graph optimised and run without Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnomon.sharpen.passes import onnx_export
from gnomon.spec.task import Task
from gnomon.workload.program import Program


class OnnxFp32:
    name = "onnx-fp32"
    title = "ONNX Runtime, float32"
    description = (
        "The model exported to ONNX, checked against the original, fused and run by ONNX Runtime's CPU kernels in the "
        "same precision. The honest baseline for everything that gives up accuracy."
    )
    options: Mapping[str, Any] = {}
    beside: Mapping[str, Mapping[str, Any]] = {}

    def why_not(self, task: Task, program: Program | None) -> str | None:
        return onnx_export.why_not(task, program, ("onnx", "onnxscript", "onnxruntime"))

    def prepare(self, program: Program, options: Mapping[str, Any], artifacts: Path) -> Program:
        path = onnx_export.exported(program, artifacts)
        return onnx_export.run_by(onnx_export.loaded(path, program.task.threads), program)


recipe = OnnxFp32()
