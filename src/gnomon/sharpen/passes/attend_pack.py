"""Text encoders on tokens alone: padding taken out before the first layer, attention within each text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.kernels.quantized_topk_attention import MOST_BITS
from gnomon.sharpen import packing
from gnomon.spec.task import Task
from gnomon.workload.program import Program

_MASK = "attention_mask"


class AttendPack:
    name = "attend.pack"
    title = "packed texts"
    description = (
        "Tokens of a padded batch run one after another as [T, D] through all layers and attend within their text, so "
        "padding costs nothing; what comes out is padded again. With topk, each token attends to its best keys alone."
    )
    # topk 0: to all keys, which is exact
    options: Mapping[str, Any] = {"topk": 0, "bits": 4}
    beside: Mapping[str, Mapping[str, Any]] = {}

    def why_not(self, task: Task, program: Program | None) -> str | None:
        if task.mode == "training":
            return "its batches are for inference, and the task trains; LengthAwareSampler sorts batches for training"
        if task.model.source == "onnx":
            return "the model is run by ONNX Runtime, not by torch"
        if all(one.name != _MASK for one in task.model.inputs):
            return f"the task has no input {_MASK!r}, so nothing says what is padding"
        if program is None:
            return None
        if program.model is None:
            return "the model is not run by torch any more"
        return packing.why_not(program.model)

    def prepare(self, program: Program, options: Mapping[str, Any], artifacts: Path) -> Program:
        assert program.model is not None  # why_not
        topk, bits = options["topk"], options["bits"]
        if topk < 0 or not 1 <= bits <= MOST_BITS:
            raise UsageError(
                f"recipe 'attend.pack' takes topk from 0 (all keys), bits from 1 to {MOST_BITS}; got {topk} and {bits}"
            )
        if not topk and bool((program.inputs[_MASK] != 0).all()):
            raise NotRunnable("no text of the task's example batch is padded, so there is nothing to leave out")
        packing.pack_encoders(program.model, packing.TopK(topk, bits) if topk else None)
        return program


recipe = AttendPack()
