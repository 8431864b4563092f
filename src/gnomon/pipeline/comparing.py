"""Compare: recipes of a task, tasks, stored measurements, a task with itself, a measurement with its baseline."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gnomon.core.errors import DamagedData, UsageError
from gnomon.core.looks import Looks
from gnomon.core.records import from_json, to_json
from gnomon.measure.child import Clock
from gnomon.measure.compare import MARGIN
from gnomon.measure.record import Comparison, Measurement
from gnomon.measure.same import SameCheck
from gnomon.pipeline._artifacts import artifacts
from gnomon.pipeline._progress import Progress, silent
from gnomon.report.stored import StoredComparison, compare_measurements
from gnomon.spec.task import Task
from gnomon.store.store import Run, Store


def compare(
    task: Task,
    run: Run,
    recipes: Sequence[str],
    *,
    sessions: int | Looks | None = None,
    margin: float = MARGIN,
    clock: Clock | None = None,
    progress: Progress = silent,
) -> Comparison:
    """The plain task and recipes on it, timed interleaved in the same processes; quality is not looked at."""
    from gnomon.measure import compare as comparing
    from gnomon.measure.child import Variant
    from gnomon.sharpen.recipe import variant

    recipe_variants = [variant(name, artifacts(task)) for name in recipes]
    variants = [Variant("eager"), *(Variant(v.name, v.prepare, v.options) for v in recipe_variants)]
    clock = clock or ("cpu" if task.device == "cpu" else "wall")
    comparison = comparing.compare(task, variants, sessions=sessions, margin=margin, clock=clock, progress=progress)
    run.add(comparison)
    return comparison


def compare_tasks(
    tasks: Mapping[str, Task],
    run: Run,
    *,
    sessions: int | Looks | None = None,
    margin: float = MARGIN,
    clock: Clock | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Different tasks, timed here and now in processes that take turns; the first is the baseline."""
    from gnomon.measure import compare as comparing

    comparison = comparing.compare_tasks(tasks, sessions=sessions, margin=margin, clock=clock, progress=progress)
    run.add(comparison)
    return comparison


def check_same(
    task: Task,
    run: Run,
    *,
    trials: int = 10,
    sessions: int = 3,
    apart: bool = False,
    margin: float = MARGIN,
    progress: Progress = silent,
) -> SameCheck:
    """A task compared with itself: how often a difference is found that is not there, and what can be seen here."""
    from gnomon.measure import same

    found, comparison = same.check_same(
        task, trials=trials, sessions=sessions, apart=apart, margin=margin, progress=progress
    )
    run.add(comparison)
    run.add(found)
    return found


def compare_stored(store: Store, first: str, second: str, margin: float = MARGIN) -> StoredComparison:
    """Two stored measurements, each the last of its run. Raises DamagedData when a run holds none."""
    sides = [(store.run(name).id, stored_measurement(store, name)) for name in (first, second)]
    return compare_measurements(*sides[0], *sides[1], margin=margin)


def stored_measurement(store: Store, name: str) -> Measurement:
    """The last measurement of a run. Raises UnknownName for no such run, DamagedData when it holds none."""
    row = store.run(name)
    measurements: list[Measurement] = store.load_all(row.id, "measurement")
    if not measurements:
        raise DamagedData(f"run {row.id} ({row.status}) holds no measurement; see gnomon db show {row.id}")
    return measurements[-1]


def save_baseline(measurement: Measurement, path: Path) -> None:
    """Write what a gate compares with: the untraced sessions, without layers, operators and spans.

    Raises UsageError when the file cannot be written.
    """
    kept = replace(
        measurement, levels=measurement.levels[:1], layers=(), operators=(), operators_cover=None,
        rest="not known: a baseline keeps the untraced run only", spans=(), stages=(), counters=(),
    )  # fmt: skip
    try:
        path.write_text(json.dumps(to_json(kept), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: the baseline cannot be written: {error.strerror}") from error


def load_baseline(store: Store, name: str) -> Measurement:
    """A baseline: a file that `save_baseline` wrote, or a stored run.

    Raises UnknownName when it is neither, DamagedData when the file or the run holds no measurement.
    """
    path = Path(name)
    if not path.is_file():
        return stored_measurement(store, name)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedData(f"{path}: no baseline, its JSON cannot be read ({error}). Save it again") from error
    try:
        found = from_json(document, Measurement)
    except DamagedData as error:
        raise DamagedData(f"{path}: no baseline: {error}") from error
    if not found.levels or not found.levels[0].sessions:
        raise DamagedData(f"{path}: no baseline: it holds no session of the untraced run. Save it again")
    return found
