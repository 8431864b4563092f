"""Unique operators and runs of operators of a task, each measured once and alone: Benanza and DLBricks.

Benanza: Li et al. 2020, arXiv 1911.06922 (best time of each unique operator, from which lower bounds follow).
DLBricks: Li et al. 2020, arXiv 1911.07967 (a model's time as the sum of the times of its unique pieces).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gnomon.core.process import call
from gnomon.core.records import from_json, record, to_json
from gnomon.measure.child import child_env
from gnomon.spec.task import Task

AS_IS = "as in the model"
LENGTHS = (1, 4, 16)
_Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class UniqueOperator:
    """One operator with one set of shapes, dtypes and attributes, and how long a call of it takes when it runs alone.

    calls: per step. times: algorithm -> median seconds of a call; 'as in the model' is what the model runs.
    other_dtype: the same for dtypes that change the result. failure: why it could not be run alone.
    """

    digest: str
    name: str
    shapes: _Shapes
    dtypes: tuple[str, ...]
    attributes: Mapping[str, Any]
    calls: int
    times: Mapping[str, float]
    other_dtype: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None

    @property
    def best_s(self) -> float | None:
        return min(self.times.values(), default=None)


@dataclass(frozen=True, slots=True)
class Composition:
    """A step cut into runs of `length` operators. pieces: how many; unique: how many differ.

    predicted_s: sum over the pieces of the time of their kind; None when one could not be run alone. step_s: median of
    whole steps, timed between the pieces with nothing traced. measured_s: time of one call of each kind, added up: what
    has to be measured instead of the step. failures: in words.
    """

    length: int
    pieces: int
    unique: int
    predicted_s: float | None
    step_s: float
    measured_s: float
    failures: tuple[str, ...] = ()


@record("unique-operators", 1)
@dataclass(frozen=True, slots=True)
class UniqueOperators:
    """The operators of one step of a task, measured alone in one fresh process.

    step_s: median of whole steps, timed between the single operators with nothing traced. clock: of all times here.
    machine: the processor's name. weights_bytes: of parameters and buffers. elapsed_s: of all the measuring.
    """

    task: str
    task_digest: str
    mode: str
    dims: Mapping[str, int]
    machine: str
    threads: int
    versions: Mapping[str, str]
    clock: Literal["wall", "cpu"]
    step_s: float
    operators: tuple[UniqueOperator, ...]
    compositions: tuple[Composition, ...]
    weights_bytes: float
    elapsed_s: float


def operator_digest(name: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[str], attributes: Any) -> str:
    """Identity of an operator call: name, shapes and dtypes of its tensors, and the arguments that are no tensors."""
    identity = [name, [list(shape) for shape in shapes], list(dtypes), _plain(attributes)]
    return "sha256:" + hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """1.0 as 1: a stored graph does not tell them apart."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def measure_unique(
    task: Task,
    *,
    lengths: Sequence[int] = LENGTHS,
    budget_s: float = 20.0,
    progress: Callable[[str], None] | None = None,
) -> UniqueOperators:
    """Run each unique operator of one step alone, and each unique run of operators for every length asked for.

    budget_s: for the timed calls of each length; every piece gets three at least. Raises NotRunnable for an engine
    other than torch, a missing device or a time-out, CheckFailed when the model fails.
    """
    arguments = {"task": to_json(task), "lengths": sorted({1, *lengths}), "budget_s": budget_s}
    result = call(
        "gnomon.measure.replay:unique",
        arguments,
        timeout_s=task.protocol.timeout_s,
        env=child_env(task),
        on_progress=progress,
    )
    return from_json(result, UniqueOperators)
