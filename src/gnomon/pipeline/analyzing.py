"""Answer standard questions about a stored run, and measure what an answer still needs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gnomon.core.errors import DamagedData, GnomonError, UsageError
from gnomon.devices import catalogue
from gnomon.measure.analyses import registry
from gnomon.measure.analyses.analysis import Analysis
from gnomon.measure.analyses.subject import Subject, of_measurements, of_trace
from gnomon.measure.record import Measurement, Trace
from gnomon.measure.unique import LENGTHS, UniqueOperators, measure_unique
from gnomon.pipeline._progress import Progress, silent
from gnomon.pipeline.measuring import capture, measure, this_machine
from gnomon.spec.task import Task
from gnomon.store.store import Run, Store


def subject(store: Store, run_id: str, *, beside: Sequence[str] = (), device: str | None = None) -> Subject:
    """What a stored run holds, ready for analyses: its measurements and what belongs to them, or an imported trace.

    beside: further runs, whose measurements of the same task are put side by side. device: name in the catalogue of a
    device whose peaks are used. What `complete` added for this run before is found again.
    Raises UnknownName, and DamagedData when a run holds neither a measurement nor a trace.
    """
    row = store.run(run_id)
    measurements: list[Measurement] = store.load_all(row.id, "measurement")
    peaks = catalogue.get(device) if device is not None else None
    if not measurements:
        traces: list[Trace] = store.load_all(row.id, "trace")
        if not traces:
            raise DamagedData(
                f"run {row.id} ({row.status}, {row.command}) holds neither a measurement nor a trace, so there is "
                f"nothing to analyze; see gnomon db show {row.id}"
            )
        return of_trace(traces[-1], peaks)
    others: list[Measurement] = []
    for name in beside:
        found = store.load_all(store.run(name).id, "measurement")
        alike = [m for m in found if m.task == measurements[-1].task]
        if not alike:
            raise UsageError(
                f"run {name} holds no measurement of {measurements[-1].task}; --with takes runs of one task"
            )
        others += alike
    runs = [row.id, *_completions(store, row.id)]
    looked_into = of_measurements(measurements)
    own = looked_into.measurement
    assert own is not None
    return replace(
        looked_into,
        measurements=(*others, *measurements),
        graph=_last(store, runs, "opgraph", lambda graph: graph.mode == own.mode),
        device=peaks or _last(store, runs, "device", lambda found: True),
        unique=_last(store, runs, "unique-operators", lambda found: dict(found.dims) == dict(own.dims)),
    )


def complete(
    store: Store,
    run_id: str,
    found: Subject,
    names: Sequence[str],
    run: Run,
    *,
    budget_s: float = 20.0,
    progress: Progress = silent,
) -> Subject:
    """The subject with what the analyses named use and it lacks: graph, peaks, unique operators. They are stored.

    Peaks and unique operators are measured only on the machine that the run was measured on. What cannot be had is
    told by the analyses that miss it. budget_s: timed seconds per length of the pieces.
    """
    uses = frozenset[str]().union(*(registry.FORMS[name].uses for name in registry.chosen(names)))
    tasks: list[Task] = store.load_all(store.run(run_id).id, "task")
    if found.measurement is None or not tasks:
        why = "the run holds no task, so nothing can be captured or measured for it"
        return replace(found, lacks={part: why for part in ("graph", "device", "unique")})
    measurement = found.measurement
    task = replace(tasks[-1], dims=dict(measurement.dims))  # of a sweep, the sizes that are looked into
    lacks = dict(found.lacks)
    elsewhere = _elsewhere(measurement)

    def have(part: str, present: Any, make: Callable[[], Any], why_not: str | None = None) -> Any:
        if present is not None or part not in uses:
            return present
        if why_not is not None:
            lacks[part] = why_not
            return None
        progress(f"{part} of {task.name}")
        try:
            return make()
        except GnomonError as error:
            lacks[part] = str(error)
            return None

    def unique_operators() -> UniqueOperators:
        result = measure_unique(task, lengths=LENGTHS, budget_s=budget_s, progress=progress)
        run.add(result)
        return result

    threads = measurement.environment.threads
    peaks_elsewhere = elsewhere
    if peaks_elsewhere is None and task.device != "cpu":
        peaks_elsewhere = f"the task ran on {task.device}; name its device with --device"
    return replace(
        found,
        graph=have("graph", found.graph, lambda: capture(task, run)),
        device=have("device", found.device, lambda: this_machine(threads, run, progress), peaks_elsewhere),
        unique=have("unique", found.unique, unique_operators, elsewhere),
        lacks=lacks,
    )


def analyze(found: Subject, names: Sequence[str]) -> list[Analysis]:
    """The answers, in the order asked for. Raises UnknownName for an analysis that there is not."""
    return [registry.analyze(found, name) for name in registry.chosen(names)]


def sweep_batches(
    resolve: Callable[[int], Task],
    batches: Sequence[int],
    run: Run,
    *,
    sessions: int | None = None,
    progress: Progress = silent,
) -> list[Measurement]:
    """The task measured untraced at each batch size. resolve: the task at a batch size.

    Raises UsageError when there are no batches, one is below 1, or the task has no dimension B.
    """
    if not batches or min(batches) < 1:
        raise UsageError(f"wanted batch sizes of at least 1, such as 1,2,4,8; got {list(batches)}")
    measured = []
    for batch in sorted(set(batches)):
        task = resolve(batch)
        if task.dims.get("B") != batch:
            known = ", ".join(task.dims) or "none"
            raise UsageError(f"task {task.name} has no dimension B to sweep; its dimensions are {known}")
        progress(f"batch {batch}")
        run.add(task)
        measured.append(measure(task, run, levels=("model",), sessions=sessions, progress=progress))
    return measured


def _completions(store: Store, run_id: str) -> list[str]:
    """Runs of `analyze` that were made to complete this one, oldest first."""
    runs = [row for row in store.runs(limit=None) if row.command == "analyze" and row.arguments.get("run") == run_id]
    return [row.id for row in reversed(runs)]


def _last(store: Store, runs: Sequence[str], kind: str, fits: Callable[[Any], bool]) -> Any:
    found = [record for run in runs for record in store.load_all(run, kind) if fits(record)]
    return found[-1] if found else None


def _elsewhere(measurement: Measurement) -> str | None:
    """Why nothing can be measured for this measurement here, or None."""
    from gnomon.devices.host import host

    was, here = measurement.environment.machine.get("cpu"), host().cpu
    if was == here:
        return None
    return f"the run was measured on {was}, this is {here}; complete it there, or name a device with --device"
