"""Measure kernels here, so that forecasts for this machine are right."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

from gnomon.core.errors import UsageError
from gnomon.devices.device import Device
from gnomon.forecast import calibration
from gnomon.forecast.predictors import Physics
from gnomon.forecast.work import Work, works
from gnomon.measure.probes.run import Probed, index_of, probe
from gnomon.measure.probes.timing import Reading
from gnomon.pipeline._progress import Progress, silent
from gnomon.store.store import Run, Store

LEAST_CALIBRATION_S = 10.0  # below, not even every class of operator is seen once
_VISITS = 3  # each kernel is wanted three times, undisturbed
_CHOSEN_SHARE = 0.6  # of the budget is planned; the rest repeats what was disturbed


def calibrate(
    device: str,
    budget_s: float,
    run: Run,
    *,
    threads: int = 1,
    progress: Progress = silent,
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
