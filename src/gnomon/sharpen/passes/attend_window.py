"""Self attention within windows: each token attends to its neighbours alone, so that cost grows with n w, not n^2."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnomon.core.errors import UsageError
from gnomon.sharpen import windowed
from gnomon.spec.task import Task
from gnomon.workload.program import Program


class AttendWindow:
    name = "attend.window"
    title = "window attention"
    description = (
        "Every self attention of a model of transformers sees a window: on text the nearest tokens, in a vision "
        "transformer a square of patches and the class token. Faster on long inputs; how much it costs in quality "
        "depends on what the model has learnt to look at, so it is verified like any other recipe."
    )
    # window: tokens of a text; side: of the square of patches
    options: Mapping[str, Any] = {"window": 128, "side": 7, "stride": 1, "dilation": 1}
    beside: Mapping[str, Mapping[str, Any]] = {}

    def why_not(self, task: Task, program: Program | None) -> str | None:
        if task.model.source == "onnx":
            return "the model is run by ONNX Runtime, not by torch"
        if program is None:
            return None
        if program.model is None:
            return "the model is not run by torch any more"
        return windowed.why_not(program.model)

    def prepare(self, program: Program, options: Mapping[str, Any], artifacts: Path) -> Program:
        assert program.model is not None  # why_not
        for name, value in options.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"option {name} of recipe 'attend.window' must be a positive int; got {value!r}")
        if options["stride"] > min(options["window"], options["side"]):
            raise UsageError("option stride of recipe 'attend.window' must not be larger than window and side")
        window = windowed.Window(options["window"], options["side"], options["stride"], options["dilation"])
        windowed.use_windows(program.model, window, lambda: program.predict(program.inputs))
        return program


recipe = AttendWindow()
