"""Measure a task on this machine: its graph, the machine, its times."""

from collections.abc import Sequence

from gnomon.core.errors import DamagedData
from gnomon.devices.device import Device
from gnomon.measure.record import Comparison, Level, Measurement
from gnomon.pipeline._artifacts import artifacts
from gnomon.pipeline._progress import Progress, silent
from gnomon.report.stored import StoredComparison, compare_measurements
from gnomon.spec.task import Task
from gnomon.store.store import Run, Store
from gnomon.workload.graph import OpGraph


def capture(task: Task, run: Run) -> OpGraph:
    """The operators of one step of the task. Neither memory nor a GPU is needed."""
    from gnomon.workload.capture import capture_task

    graph = capture_task(task)
    run.add(graph)
    return graph


def this_machine(threads: int, run: Run, progress: Progress = silent) -> Device:
    """This machine's CPU as a device whose numbers were measured."""
    from gnomon.measure.peaks import host_device

    device = host_device(threads=threads, progress=progress)
    run.add(device)
    return device


def measure(
    task: Task,
    run: Run,
    *,
    levels: Sequence[Level] = ("model", "layer", "operator"),
    sessions: int | None = None,
    progress: Progress = silent,
) -> Measurement:
    """The task's times on this machine, level by level."""
    from gnomon.measure.run import measure

    measurement = measure(task, levels=levels, sessions=sessions, progress=progress)
    run.add(measurement)
    return measurement


def compare(
    task: Task, run: Run, recipes: Sequence[str], *, sessions: int | None = None, progress: Progress = silent
) -> Comparison:
    """The plain task and recipes on it, timed interleaved in the same processes; quality is not looked at."""
    from gnomon.measure import compare as comparing
    from gnomon.measure.child import Variant
    from gnomon.sharpen.recipe import variant

    recipe_variants = [variant(name, artifacts(task)) for name in recipes]
    plain = Variant("eager")
    adapted = [Variant(v.name, v.prepare, v.options) for v in recipe_variants]
    comparison = comparing.compare(task, [plain, *adapted], sessions=sessions, progress=progress)
    run.add(comparison)
    return comparison


def compare_stored(store: Store, first: str, second: str) -> StoredComparison:
    """Two stored measurements, each the last of its run. Raises DamagedData when a run holds none."""
    sides = []
    for name in (first, second):
        row = store.run(name)
        measurements: list[Measurement] = store.load_all(row.id, "measurement")
        if not measurements:
            raise DamagedData(f"run {row.id} ({row.status}) holds no measurement; see gnomon db show {row.id}")
        sides.append((row.id, measurements[-1]))
    return compare_measurements(*sides[0], *sides[1])
