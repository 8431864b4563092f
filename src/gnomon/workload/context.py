"""The code around a model: what a stage is given, and how the callable or the inline text of a manifest becomes one."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gnomon.core.errors import ManifestError
from gnomon.spec.task import Task
from gnomon.spec.trust import is_trusted
from gnomon.workload import source


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage may look at. item: which batch of the stream it is, counted from 0."""

    task: Task
    device: str
    item: int

    def generator(self) -> torch.Generator:
        """Random numbers of this item on the CPU: those of the task's seed plus `item`, whatever ran before."""
        return torch.Generator().manual_seed((self.task.seed + self.item) % 2**63)


def stage_call(
    task: Task, name: Literal["preprocess", "postprocess"], device: str = "cpu"
) -> Callable[[Any], Any] | None:
    """The task's stage as a callable of one batch that counts its items; None when the task has no such stage.

    Raises ManifestError for code that may not run or is not there, NotRunnable when importing it lacks a package.
    """
    stage = getattr(task.model.stages, name)
    if stage is None:
        return None
    key = f"model.stages.{name}"
    function = _inline(task, stage.code, name) if stage.code is not None else source.load(stage.target, task, key)
    arguments = dict(stage.arguments)
    items = itertools.count()
    return lambda batch: function(Context(task, device, next(items)), batch, **arguments)


def _inline(task: Task, code: str, name: str) -> Callable[..., Any]:
    where = f"task {task.name}: model.stages.{name}.code"
    if not task.trusted and (task.model.inline is None or not is_trusted(task.model.inline)):
        raise ManifestError(f"{where}: the manifest {task.model.inline} is not on the trust list; its code was not run")
    names: dict[str, Any] = {"__name__": f"inline_{name}"}
    exec(compile(code, f"<{where}>", "exec"), names)
    function: Callable[..., Any] | None = names.get(name)
    if not callable(function):
        raise ManifestError(f"{where}: wanted code that defines {name}(context, batch)")
    return function
