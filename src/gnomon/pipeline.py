"""The stages in their order. The only module that knows all of them; records go to the store as they come."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gnomon._version import __version__
from gnomon.core import paths, process
from gnomon.core.errors import DamagedData, UsageError
from gnomon.devices import catalogue
from gnomon.devices.breakeven import BreakEven, Kind
from gnomon.devices.device import Device
from gnomon.forecast import calibration
from gnomon.forecast.predictors import Physics
from gnomon.forecast.record import Forecast
from gnomon.forecast.rental import Prices
from gnomon.forecast.setting import Setting, forecasts
from gnomon.forecast.sweep import Sizes, Sweep, sweep
from gnomon.forecast.work import Work, works
from gnomon.measure.probes.run import Probed, index_of, probe
from gnomon.measure.probes.timing import Reading
from gnomon.measure.record import Comparison, Level, Measurement
from gnomon.report import html
from gnomon.report.examination import Examination
from gnomon.report.stored import StoredComparison, compare_measurements
from gnomon.sharpen.record import Change
from gnomon.spec.lock import write_lock
from gnomon.spec.task import Task
from gnomon.store.store import Run, Store
from gnomon.workload.graph import OpGraph

Progress = Callable[[str], None]


def _silent(message: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Plan:
    """How much work an examination does. recipes None: all that exist; sessions None: as the task's protocol says."""

    levels: tuple[Level, ...] = ("model", "layer", "operator")
    recipes: tuple[str, ...] | None = None
    sessions: int | None = None
    devices: tuple[str, ...] | None = None


def examine(
    task: Task,
    store: Store,
    *,
    plan: Plan | None = None,
    out: Path | None = None,
    command: str = "",
    progress: Progress = _silent,
) -> Examination:
    """Measure here, forecast elsewhere, sharpen, report. Everything is stored on the way, under one run.

    out: folder for report.html, the trace and the lock. command: what to type to do this again.
    Raises what the stages raise; the run is then marked failed and what it stored before stays.
    """
    plan = plan or Plan()
    arguments = {"command": command, "levels": list(plan.levels), "out": str(out) if out else None}
    with store.begin("examine", arguments, task=task.name, task_digest=task.digest) as run:
        run.add(task)
        progress("capturing the operator graph")
        graph = capture(task, run)
        progress("measuring this machine's peaks (kept for later runs)")
        machine = this_machine(task.threads, run, progress)
        measurement = measure(task, run, levels=plan.levels, sessions=plan.sessions, progress=progress)
        progress("forecasting on every device of the catalogue")
        forecasts, warnings = forecast_everywhere(task, graph, _devices(plan.devices, machine), run)
        changes, comparison = sharpen(task, run, recipes=plan.recipes, sessions=plan.sessions, progress=progress)
        examination = Examination(
            task=task,
            graph=graph,
            measurement=measurement,
            device=machine,
            forecasts=tuple(forecasts),
            comparison=comparison,
            changes=tuple(changes),
            command=command,
            run_id=run.id,
            gnomon_version=__version__,
            warnings=tuple(warnings),
            memory=_memory(graph),
        )
        if out is not None:
            progress("writing the report")
            write(examination, out)
    return examination


def capture(task: Task, run: Run) -> OpGraph:
    """The operators of one step of the task. Neither memory nor a GPU is needed."""
    from gnomon.workload.capture import capture_task

    graph = capture_task(task)
    run.add(graph)
    return graph


def this_machine(threads: int, run: Run, progress: Progress = _silent) -> Device:
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
    progress: Progress = _silent,
) -> Measurement:
    """The task's times on this machine, level by level."""
    from gnomon.measure.run import measure

    measurement = measure(task, levels=levels, sessions=sessions, progress=progress)
    run.add(measurement)
    return measurement


def forecast_everywhere(
    task: Task,
    graph: OpGraph,
    devices: Sequence[Device],
    run: Run,
    setting: Setting | None = None,
    calibrations: Mapping[str, calibration.Calibration] | None = None,
    tables: Mapping[str, BreakEven] | None = None,
) -> tuple[list[Forecast], list[str]]:
    """A forecast for every device that can run the task so, and a remark for each that cannot.

    calibrations: device name -> the calibration that its forecast uses. tables: device name -> what was measured of
    sparse or quantized layers there.
    """
    found, remarks = forecasts(
        graph,
        devices,
        setting or Setting(),
        batch=task.dims.get("B", 0),
        dims=task.dims,
        calibrations=calibrations,
        tables=tables,
    )
    for result in found:
        run.add(result)
    return found, remarks


LEAST_CALIBRATION_S = 10.0  # below, not even every class of operator is seen once
_VISITS = 3  # each kernel is wanted three times, undisturbed
_CHOSEN_SHARE = 0.6  # of the budget is planned; the rest repeats what was disturbed


def break_even(kind: Kind, threads: int, budget_s: float, run: Run, progress: Progress = _silent) -> BreakEven:
    """What sparse or int8 linear layers take on this machine against dense ones."""
    import torch

    from gnomon.measure.breakeven import measure_break_even

    machine = this_machine(threads, run, progress)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        table = measure_break_even(kind, machine.name, budget_s=budget_s, progress=progress)
    finally:
        torch.set_num_threads(before)
    run.add(table)
    return table


def stored_break_even(store: Store, kind: Kind) -> dict[str, BreakEven]:
    """Device name -> the newest table of this kind that was measured on it."""
    tables = (store.load(row.id) for row in store.results(kind="break-even"))
    return {table.device: table for table in tables if table.kind == kind}


def sweep_task(
    resolve: Callable[[Sizes], Task],
    devices: Sequence[Device],
    run: Run,
    *,
    batches: Sequence[int],
    seqlens: Sequence[int] = (),
    dtypes: Sequence[str] = (),
    length: int | None = None,
    setting: Setting | None = None,
    prices: Prices | None = None,
) -> Sweep:
    """Every combination of batch, length, dtype and device forecast. resolve: the task at some sizes."""
    from gnomon.workload.capture import capture_task

    result = sweep(
        lambda sizes: capture_task(resolve(sizes)),
        devices,
        batches=batches,
        seqlens=seqlens,
        dtypes=dtypes,
        length=length,
        setting=setting,
        prices=prices,
    )
    run.add(result)
    return result


def calibrate(
    device: str,
    budget_s: float,
    run: Run,
    *,
    threads: int = 1,
    progress: Progress = _silent,
    target: Device | None = None,
    measure: Callable[..., Probed] = probe,
) -> calibration.Calibration:
    """Measure kernels on the device at hand and store what they say about forecasts for it.

    device: 'cpu', 'cuda' or 'cuda:1'. budget_s: time for measuring, peaks and start-up not counted. threads: of the
    CPU. target: what forecasts know of the device; this machine's own when not given. measure: what times the kernels.
    Raises UsageError for another device or a budget that is too small, NotRunnable without that GPU.
    """
    from gnomon.measure.peaks import gpu_device, host_device

    if not budget_s >= LEAST_CALIBRATION_S:
        raise UsageError(
            f"a calibration takes at least {LEAST_CALIBRATION_S:.0f} s; got a budget of {budget_s:g} s. Try --budget 2m"
        )
    index = index_of(device)
    if target is None and index is None:
        progress("measuring this machine's peaks (kept for later runs)")
        target = host_device(threads=threads, progress=progress)
    elif target is None:
        target = gpu_device(index or 0)
    started = datetime.now(UTC)
    progress("choosing kernels")
    candidates = _candidates("cpu" if index is None else "cuda")
    prices = Physics().prices([candidate.work for candidate in candidates], target)
    costs = [_VISITS * _visit_s(c, price.time.value_s) for c, price in zip(candidates, prices, strict=True)]
    chosen = calibration.choose([c.work for c in candidates], costs, _CHOSEN_SHARE * budget_s)
    names = [candidates[i].name for i in chosen]
    probed = measure(names, device=device, threads=threads, budget_s=budget_s, on_progress=progress)
    by_name = {candidate.name: candidate for candidate in candidates}
    samples = tuple(_sample(reading, by_name[reading.name]) for reading in probed.readings)
    host = calibration.Host(**asdict(probed.host))
    result = calibration.Calibration(
        device=target,
        predictor=Physics.name,
        measured_at=started.isoformat(timespec="seconds"),
        clock="cpu" if index is None else "cuda",
        threads=threads,
        allocator=probed.allocator,
        versions=probed.versions,
        budget_s=budget_s,
        elapsed_s=(datetime.now(UTC) - started).total_seconds(),
        host=host,
        samples=samples,
        factors=calibration.factors(samples, calibration.fit(samples, host, target)),
        warnings=tuple(_calibration_warnings(names, probed.readings)),
        reference_s=statistics.median(one.reference_s / one.disturbance for one in probed.readings),
    )
    run.add(result)
    return result


def stored_calibration(store: Store, device: Device) -> calibration.Calibration | None:
    """The newest calibration of this device in the store, None when there is none."""
    rows = [row for row in store.results(kind="calibration") if row.device == device.name]
    found: calibration.Calibration | None = store.load(rows[-1].id) if rows else None
    return found


class _Candidate(NamedTuple):
    """A probe that could be measured. views: operators in it that only make views. input_bytes: what it is fed."""

    name: str
    work: Work
    views: int
    input_bytes: float


@cache
def _candidates(kind: str) -> tuple[_Candidate, ...]:
    """Every probe of the pool as a forecast sees it. kind: 'cpu' or 'cuda'."""
    from gnomon.measure.probes.pool import pool
    from gnomon.workload.capture import capture as capture_graph

    found = []
    for name, one in pool(kind).items():
        inputs = [given.allocate() for given in one.inputs]
        demands = works(capture_graph(one, inputs, name=name))
        (work,) = (w for w in demands if w.category != "view")
        if work.category == "matmul":
            work = replace(work, weight_bytes=float(sum(inputs[i].nbytes for i in one.weights)))
        found.append(_Candidate(name, work, len(demands) - 1, sum(x.nbytes for x in inputs)))
    return tuple(found)


def _sample(reading: Reading, candidate: _Candidate) -> calibration.Sample:
    return calibration.Sample(
        reading.name, candidate.work, candidate.views, reading.seconds, reading.spread / 2, reading.disturbance
    )


def _visit_s(candidate: _Candidate, predicted_s: float) -> float:
    """What one visit takes: making the inputs, a first call, three timed ones or 30 ms of them, the reference."""
    return 0.02 + max(5 * predicted_s, 0.03) + 2e-9 * candidate.input_bytes


def _calibration_warnings(names: Sequence[str], readings: Sequence[Reading]) -> list[str]:
    warnings = []
    disturbed = sum(reading.disturbance != 1.0 for reading in readings)
    if disturbed:
        warnings.append(
            f"{disturbed} of {len(readings)} kernels were never seen in this machine's usual state: something "
            "else uses it. Their times are scaled by how slow the reference was; calibrate again when it is quiet"
        )
    if len(readings) < len(names):
        warnings.append(f"{len(names) - len(readings)} of {len(names)} chosen kernels were not reached in the budget")
    return warnings


def sharpen(
    task: Task,
    run: Run,
    *,
    recipes: Sequence[str] | None = None,
    sessions: int | None = None,
    progress: Progress = _silent,
) -> tuple[list[Change], Comparison | None]:
    """Try recipes on the task: verified in isolation, then timed interleaved with the task as it is."""
    from gnomon.measure import run as measuring
    from gnomon.sharpen import run as sharpening
    from gnomon.sharpen.recipe import recipes as registry

    def compare(task: Task, variants: Sequence[Any]) -> Comparison:
        adapted = [measuring.Variant(v.name, v.prepare, v.options) for v in variants]
        return measuring.compare(task, adapted, sessions=sessions, progress=progress)

    changes, comparison = sharpening.sharpen(
        task,
        list(recipes) if recipes is not None else registry().names(),
        compare=compare,
        call=process.call,
        artifacts=_artifacts(task),
        progress=progress,
    )
    if comparison is not None:
        run.add(comparison)
    for change in changes:
        run.add(change)
    return changes, comparison


def compare(
    task: Task, run: Run, recipes: Sequence[str], *, sessions: int | None = None, progress: Progress = _silent
) -> Comparison:
    """The plain task and recipes on it, timed interleaved in the same processes; quality is not looked at."""
    from gnomon.measure import run as measuring
    from gnomon.sharpen.recipe import variant

    recipe_variants = [variant(name, _artifacts(task)) for name in recipes]
    plain = measuring.Variant("eager")
    adapted = [measuring.Variant(v.name, v.prepare, v.options) for v in recipe_variants]
    comparison = measuring.compare(task, [plain, *adapted], sessions=sessions, progress=progress)
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


def write(examination: Examination, out: Path) -> Path:
    """report.html, trace.json and task.lock in the folder `out`. Returns the path of the report."""
    from gnomon.report.trace import write_trace

    out.mkdir(parents=True, exist_ok=True)
    write_trace(examination.measurement, out / "trace.json")
    write_lock(examination.task, out / "task.lock")
    return html.write(examination, out / "report.html")


def recall(store: Store, run_id: str) -> Examination:
    """The examination that a stored run of `examine` made, put together again from its records.

    Raises DamagedData when a record that the report needs is not there (the run was broken or failed on the way).
    """
    row = store.run(run_id)

    def one(kind: str) -> Any:
        found = store.load_all(row.id, kind)
        if not found:
            raise DamagedData(f"run {row.id} ({row.status}) holds no {kind}; only a finished examine has a report")
        return found[-1]

    graph = one("opgraph")
    return Examination(
        task=one("task"),
        graph=graph,
        measurement=one("measurement"),
        device=one("device"),
        forecasts=tuple(store.load_all(row.id, "forecast")),
        comparison=next(iter(store.load_all(row.id, "comparison")), None),
        changes=tuple(store.load_all(row.id, "change")),
        command=str(row.arguments.get("command", "")),
        run_id=row.id,
        gnomon_version=row.gnomon_version,
        memory=_memory(graph),
    )


def _artifacts(task: Task) -> Path:
    folder = paths.home() / "artifacts" / task.digest.removeprefix("sha256:")[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _devices(names: Sequence[str] | None, machine: Device) -> list[Device]:
    return [machine, *(catalogue.every() if names is None else [catalogue.get(name) for name in names])]


def _memory(graph: OpGraph) -> Mapping[str, float]:
    from gnomon.workload.memory import peak

    profile = peak(graph)
    return {
        "parameters": profile.parameter_bytes,
        "gradients": profile.gradient_bytes,
        "optimizer state": profile.optimizer_bytes,
        "activations": profile.activation_bytes,
        "inputs": profile.input_bytes,
    }
