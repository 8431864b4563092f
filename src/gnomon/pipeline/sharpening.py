"""Try recipes on a task: verified in isolation, then timed beside it."""

from collections.abc import Sequence
from typing import Any

from gnomon.core import process
from gnomon.measure.record import Comparison
from gnomon.pipeline._artifacts import artifacts
from gnomon.pipeline._progress import Progress, silent
from gnomon.sharpen.record import Change
from gnomon.spec.task import Task
from gnomon.store.store import Run


def sharpen(
    task: Task,
    run: Run,
    *,
    recipes: Sequence[str] | None = None,
    sessions: int | None = None,
    progress: Progress = silent,
) -> tuple[list[Change], Comparison | None]:
    """Try recipes on the task: verified in isolation, then timed interleaved with the task as it is."""
    from gnomon.measure import compare as comparing
    from gnomon.measure.child import Variant
    from gnomon.sharpen import run as sharpening
    from gnomon.sharpen.recipe import recipes as registry

    def compare(task: Task, variants: Sequence[Any]) -> Comparison:
        adapted = [Variant(v.name, v.prepare, v.options) for v in variants]
        # equality is no reason to keep a recipe, so it is not asked for
        calls = task.protocol.calls
        return comparing.compare(task, adapted, sessions=sessions, calls=calls, margin=None, progress=progress)

    changes, comparison = sharpening.sharpen(
        task,
        list(recipes) if recipes is not None else registry().names(),
        compare=compare,
        call=process.call,
        artifacts=artifacts(task),
        progress=progress,
    )
    if comparison is not None:
        run.add(comparison)
    for change in changes:
        run.add(change)
    return changes, comparison
