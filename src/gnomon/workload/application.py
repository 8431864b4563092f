"""A program as its application runs it: batches of the dataset through preprocessing, the model and postprocessing."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gnomon.core.errors import CheckFailed, NotRunnable
from gnomon.spec.shapes import show, unify
from gnomon.spec.task import Task
from gnomon.workload.context import stage_call
from gnomon.workload.inputs import model_inputs, raw_batch
from gnomon.workload.program import Program, TrainingStep, floating_dtype
from gnomon.workload.stages import Observer, Pipeline


def application(program: Program, *, queue: int = 2, observer: Observer | None = None) -> Pipeline:
    """The pipeline whose `stream(batches(task))` is what a user of the task's model waits for.

    Its preprocess checks what the task's own stage gives and puts it onto the device; its run is one prediction, or one
    training step on the batch, until the device is done; its postprocess is the task's. A stage that the task does not
    have is left out, but for the first, which casts and moves. queue, observer: see `Pipeline`.
    Raises ManifestError for stages that may not run or are not there, NotRunnable for a training step that another
    engine made and that knows only its own batch.
    """
    task, device = program.task, program.task.device
    if task.mode == "training" and not isinstance(program.step, TrainingStep):
        raise NotRunnable(f"task {task.name}: this variant's training step cannot be given another batch; use eager")
    floating = None if task.model.source == "onnx" else floating_dtype(task)
    own = stage_call(task, "preprocess", device)
    step = program.step

    def preprocess(raw: Any) -> Mapping[str, Tensor]:
        batch = model_inputs(raw if own is None else own(raw), task, floating)
        return {name: value.to(device) for name, value in batch.items()}

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        if isinstance(step, TrainingStep):
            step.inputs = batch
            outputs = step()
        else:
            outputs = program.predict(batch)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return outputs

    return Pipeline(preprocess, run, stage_call(task, "postprocess", device), queue, observer)


def batches(task: Task, count: int | None = None) -> Iterator[Any]:
    """The first `count` batches before preprocessing, drawn one by one; without a count they do not end."""
    item = 0
    while count is None or item < count:
        yield raw_batch(task, item)
        item += 1


def check_outputs(task: Task, outputs: tuple[Tensor, ...]) -> None:
    """Raises CheckFailed unless the outputs have the names' order, dtypes and shapes that the manifest states.

    A dimension that the inputs do not know takes the size that it has first, and must keep it.
    """
    declared = task.model.outputs
    if not declared:
        return
    where = f"task {task.name}: model.outputs"
    if len(declared) != len(outputs):
        raise CheckFailed(f"{where}: {len(declared)} are declared, the model gives {len(outputs)}")
    sizes = dict(task.dims)
    for one, value in zip(declared, outputs, strict=True):
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype != one.dtype:
            raise CheckFailed(f"{where}: {one.name!r} is declared {one.dtype}, the model gives {dtype}")
        try:
            sizes = unify(one.shape, tuple(value.shape), sizes)
        except ValueError as error:
            raise CheckFailed(f"{where}: {one.name!r} is declared {show(one.shape)}: {error}") from error
