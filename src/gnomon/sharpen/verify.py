"""Is a recipe's program still the same task? Outputs side by side, and the task's own measure of quality.

`evaluate` is called in a child process of its own: what recipes do to a process (compilers, caches) ends there.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnomon.core.errors import CheckFailed, GnomonError, NotRunnable
from gnomon.core.process import JSON, progress
from gnomon.core.records import from_json, to_json
from gnomon.sharpen.recipe import effective_options, get, prepare
from gnomon.sharpen.record import Distance, Verification
from gnomon.spec.task import Task

if TYPE_CHECKING:
    from torch import Tensor

    from gnomon.workload.program import Predict, Program

_ROWS = 16  # of outputs that are compared, in batches of the task's size
_BATCHES = (2, 16)  # at least, at most
_TRAINING_STEPS = 3


def evaluate(arguments: JSON) -> JSON:
    """Verify recipes on a task, one after the other; one that fails does not stop the next.

    arguments: task, recipes [{recipe, options}], artifacts. Returns one Verification per recipe, as plain JSON.
    Raises what building or running the task without any recipe raises.
    """
    import torch

    task: Task = from_json(arguments["task"], Task)
    torch.set_num_threads(task.threads)  # compiled kernels are written for a number of threads
    check = _Training(task) if task.mode == "training" else _Inference(task)
    results = []
    for request in arguments["recipes"]:
        progress(f"recipe {request['recipe']}")
        results.append(to_json(_verified(task, request, Path(arguments["artifacts"]), check)))
    return results


def _verified(task: Task, request: Mapping[str, Any], artifacts: Path, check: "_Inference | _Training") -> Verification:
    from gnomon.workload.program import build

    done = Verification(request["recipe"], request["options"])
    try:
        recipe = get(done.recipe)
        done = replace(done, options=effective_options(recipe, done.options))
        reason = recipe.why_not(task, None)
        program = None if reason else build(task, device=task.device)
        if program is not None:
            reason = recipe.why_not(task, program)
        if program is None or reason:
            return replace(done, why_not=reason)
        start = time.perf_counter()
        program = prepare(program, {"recipe": done.recipe, "artifacts": str(artifacts), **done.options})
        check.first_call(program)
        prepare_s = time.perf_counter() - start
        distance, quality = check.compare(program)
        return replace(
            done,
            distance=distance,
            quality_before=check.quality,
            quality_after=quality,
            prepare_s=prepare_s,
        )
    except NotRunnable as error:
        return replace(done, why_not=str(error))
    except GnomonError as error:
        return replace(done, failure=str(error))
    except Exception as error:  # a recipe runs compilers and exporters, which raise anything
        return replace(done, failure=_one_line(error))


class _Inference:
    """The task as it is: its outputs on seeded batches and its quality, computed once."""

    def __init__(self, task: Task) -> None:
        from gnomon.workload import program as workload
        from gnomon.workload.inputs import example_inputs

        program = workload.build(task, device=task.device)
        rows = task.dims.get("B", 1)
        count = min(max(-(-_ROWS // rows), _BATCHES[0]), _BATCHES[1])
        self._task, self._batches = task, []
        # the seed of the task is the one that is timed; the others are further draws from the same source
        for i in range(count):
            batch = example_inputs(replace(task, seed=task.seed + i), _floating(task))
            self._batches.append({name: value.to(task.device) for name, value in batch.items()})
        self._outputs = [program.predict(batch) for batch in self._batches]
        for outputs in self._outputs:
            _refuse_nan(outputs, "the task without any recipe")
        self.quality = _quality(task, program.predict)

    def first_call(self, program: "Program") -> None:
        program.step()

    def compare(self, program: "Program") -> tuple[Distance, Mapping[str, float]]:
        pairs = [(a, program.predict(batch)) for a, batch in zip(self._outputs, self._batches, strict=True)]
        return outputs_distance(pairs), _quality(self._task, program.predict)


class _Training:
    """The task as it is: its first gradient and the losses of its first steps.

    In evaluation mode: dropout draws random numbers, in another order once operators are fused, and would hide what is
    compared. The timed step is in training mode.
    """

    def __init__(self, task: Task) -> None:
        from gnomon.workload.program import build

        self._task = task
        program = build(task, device=task.device)
        self.quality = _quality(task, program.predict)
        self._gradients, self._losses = self._run(program)
        if not all(math.isfinite(loss) for loss in self._losses):
            raise CheckFailed(f"{task.name}: the loss of the first steps is {self._losses} without any recipe")

    def first_call(self, program: "Program") -> None:
        _trained(program).forward()

    def compare(self, program: "Program") -> tuple[Distance, Mapping[str, float]]:
        import torch

        quality = _quality(self._task, program.predict)
        gradients, losses = self._run(program)
        if not all(math.isfinite(loss) for loss in losses):
            raise CheckFailed(f"the loss of the first steps is {losses}; without the recipe it is {self._losses}")
        if gradients.shape != self._gradients.shape:
            raise CheckFailed(f"{gradients.numel()} gradients; without the recipe {self._gradients.numel()}")
        cosine = float(_cosine_rows(self._gradients[None], gradients[None]))
        if not math.isfinite(cosine):
            raise CheckFailed(f"{int(torch.isnan(gradients).sum())} of {gradients.numel()} gradients are NaN")
        moved = max(abs(a - b) for a, b in zip(self._losses, losses, strict=True))
        return Distance(cosine, cosine, moved, 1), quality

    def _run(self, program: "Program") -> tuple["Tensor", list[float]]:
        import torch

        step = _trained(program)
        step.model.eval()
        losses = []
        for i in range(_TRAINING_STEPS):
            value = step.forward()
            value.backward()
            losses.append(float(value.detach()))
            if i == 0:
                found = [p.grad.detach().flatten().float() for p in step.model.parameters() if p.grad is not None]
                gradients = torch.cat(found).cpu()
            step.update()
        return gradients, losses


def outputs_distance(pairs: Sequence[tuple[Sequence["Tensor"], Sequence["Tensor"]]]) -> Distance:
    """How far outputs moved. pairs: per batch, the outputs before and after.

    A row is what the first dimension of the first output counts; an output without dimensions is one row. The largest
    difference is over all outputs. Raises CheckFailed for NaN, another number of outputs or another shape.
    """
    import torch

    cosines, largest = [], 0.0
    for before, after in pairs:
        if len(before) != len(after):
            raise CheckFailed(f"{len(after)} outputs; without the recipe {len(before)}")
        _refuse_nan(after, "the recipe's program")
        for i, (a, b) in enumerate(zip(before, after, strict=True)):
            if a.shape != b.shape:
                raise CheckFailed(f"output {i} has shape {tuple(b.shape)}; without the recipe {tuple(a.shape)}")
            if a.numel():
                # equal infinities (masks) are no difference, and their difference is NaN
                gap = torch.where(a == b, 0.0, (a.double() - b.double()).abs())
                largest = max(largest, float(gap.max()))
        rows = before[0].shape[0] if before[0].dim() else 1
        cosines.append(_cosine_rows(before[0].reshape(rows, -1), after[0].reshape(rows, -1)))
    cosine = torch.cat(cosines)
    if not len(cosine):
        raise CheckFailed("the first output has no rows; nothing can be compared")
    if not math.isfinite(largest):
        raise CheckFailed("an output that was finite is infinite with the recipe")
    return Distance(float(cosine.mean()), float(cosine.min()), largest, len(cosine))


def _cosine_rows(a: "Tensor", b: "Tensor") -> "Tensor":
    """[rows] float64. Two rows of zeros point the same way; one alone is at a right angle to everything."""
    import torch

    a, b = (torch.nan_to_num(x.double(), posinf=0.0, neginf=0.0) for x in (a, b))
    norms = a.norm(dim=1) * b.norm(dim=1)
    both_zero = (a.norm(dim=1) == 0) & (b.norm(dim=1) == 0)
    cosine = (a * b).sum(1) / torch.where(norms > 0, norms, torch.ones_like(norms))
    return torch.where(both_zero, torch.ones_like(cosine), cosine.clamp(-1.0, 1.0))


def _quality(task: Task, predict: "Predict") -> dict[str, float]:
    from gnomon.workload import source

    if task.quality.evaluate is None:
        return {}
    measure: Callable[..., Mapping[str, float]] = source.load(task.quality.evaluate, task, "quality.evaluate")
    found = {str(name): float(value) for name, value in measure(predict, dict(task.dims)).items()}
    for name, value in found.items():
        if not math.isfinite(value):
            raise CheckFailed(f"{task.quality.evaluate} gives {name} = {value}")
    if task.quality.metric is not None and task.quality.metric not in found:
        raise CheckFailed(
            f"{task.quality.evaluate} gives {', '.join(found) or 'nothing'}; quality.metric is {task.quality.metric!r}"
        )
    return found


def _refuse_nan(outputs: Sequence["Tensor"], who: str) -> None:
    import torch

    for i, output in enumerate(outputs):
        bad = int(torch.isnan(output).sum())
        if bad:
            raise CheckFailed(f"{who} gives {bad} NaN in output {i} of shape {tuple(output.shape)}")


def _trained(program: "Program") -> Any:
    from gnomon.workload.program import TrainingStep

    if not isinstance(program.step, TrainingStep):
        raise CheckFailed(f"a recipe for training keeps the TrainingStep; got {type(program.step).__name__}")
    return program.step


def _floating(task: Task) -> Any:
    from gnomon.workload.program import floating_dtype

    return None if task.model.source == "onnx" else floating_dtype(task)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}".removesuffix(": ")
