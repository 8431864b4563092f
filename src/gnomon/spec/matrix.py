"""A task's matrix, expanded: which combinations are tasks, which cannot be, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnomon.core.errors import DamagedData, ManifestError, NotRunnable
from gnomon.spec.combine import combinations, describe
from gnomon.spec.resolve import resolve, task_spec
from gnomon.spec.task import Task


@dataclass(frozen=True, slots=True)
class Combination:
    """One of a matrix. target: what to give to `resolve`. choices: 'model', 'dims.B' ... -> the alternative, in words.

    task: None when it is none here. why_not: the first reason. fits: its parts fit each other; False is no task
    anywhere, while one that fits and is None lacks something on this machine.
    """

    number: int
    target: str
    choices: Mapping[str, str]
    task: Task | None
    fits: bool = True
    why_not: str | None = None


def expand(
    target: str | Path,
    *,
    trust: bool = False,
    search: Sequence[Path] = (),
    host: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Combination]:
    """All combinations of a task's matrix in their order, those that do not fit with the reason why.

    Other arguments are those of `resolve`. Raises ManifestError when the task has no matrix, and when no combination
    fits: then a fault that they share is more likely than a matrix without a task.
    """
    spec = task_spec(target, trust=trust, search=search)
    if spec.matrix is None:
        raise ManifestError(f"{target}: the task has no spec.matrix, so there is nothing to expand")
    found = []
    for number, choice in enumerate(combinations(spec.matrix), start=1):
        name, words = f"{target}#{number}", describe(spec.matrix, choice)
        try:
            task = resolve(name, trust=trust, search=search, host=host, **options)
            found.append(Combination(number, name, words, task))
        except (ManifestError, NotRunnable, DamagedData) as error:
            first = str(error).splitlines()[0]
            found.append(Combination(number, name, words, None, isinstance(error, NotRunnable), first))
    if not any(one.fits for one in found):
        raise ManifestError(f"{target}: none of {len(found)} combinations is a task; the first: {found[0].why_not}")
    return found


def plan(found: Sequence[Combination]) -> list[Task]:
    """The tasks among the combinations, in their order."""
    return [one.task for one in found if one.task is not None]
