"""An examination: everything that one run of `gnomon examine` found out, and the sentences that sum it up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gnomon.devices.device import Device
from gnomon.forecast.record import Forecast
from gnomon.measure.analyses import join
from gnomon.measure.record import Comparison, LevelRun, Measurement
from gnomon.report import text
from gnomon.sharpen.record import Change
from gnomon.spec.task import Task
from gnomon.workload.graph import OpGraph


@dataclass(frozen=True, slots=True)
class Examination:
    """What a report is made from.

    device: this machine with its measured peaks. changes: every recipe that was tried, kept or not. command: what to
    type to do it again. memory: bytes at the peak of one step by kind, as computed from the graph, when it was.
    """

    task: Task
    graph: OpGraph
    measurement: Measurement
    device: Device
    forecasts: tuple[Forecast, ...]
    comparison: Comparison | None
    changes: tuple[Change, ...]
    command: str
    run_id: str
    gnomon_version: str
    warnings: tuple[str, ...] = ()
    memory: Mapping[str, float] | None = None

    def layers(self) -> tuple[join.LayerRow, ...]:
        """Measured modules as a tree in pre-order with their FLOP and bytes."""
        return join.layers(self.measurement, self.graph)

    def operators(self) -> tuple[join.OperatorRow, ...]:
        """Measured operators with FLOP, bytes and the distance to this machine's roofline, longest first."""
        return join.operators(self.measurement, self.graph, self.device)

    def ranked_forecasts(self) -> tuple[Forecast, ...]:
        """Fastest first; a device whose memory is too small comes after all that can run the task."""
        return tuple(sorted(self.forecasts, key=lambda f: (not f.fits, f.total.value_s, f.device)))

    def here(self) -> Forecast | None:
        """The forecast of this machine, to be read beside the measurement."""
        return next((f for f in self.forecasts if f.device == self.device.name), None)

    def best_change(self) -> Change | None:
        """The fastest recipe that was kept."""
        kept = [c for c in self.changes if c.verdict == "kept" and c.speedup is not None]
        return max(kept, key=lambda c: c.speedup.speedup.value if c.speedup else 0.0, default=None)

    def fastest_forecast(self) -> Forecast | None:
        """The fastest device that is not this machine and has the memory."""
        others = (f for f in self.ranked_forecasts() if f.fits and f.device != self.device.name)
        return next(others, None)

    def level(self, name: str) -> LevelRun | None:
        """The run that traced down to the level `name`."""
        return next((run for run in self.measurement.levels if run.level == name), None)

    def all_warnings(self) -> tuple[str, ...]:
        """Warnings of the examination, of the measurement, and of sessions that never became steady."""
        run = self.level("model")
        shaky = sum(not session.is_stable for session in run.sessions) if run else 0
        found = [*self.warnings, *self.measurement.warnings]
        if run and shaky:
            found.append(f"{shaky} of {len(run.sessions)} sessions were still getting faster or slower after warm-up.")
        return tuple(dict.fromkeys(found))


def headlines(examination: Examination) -> tuple[str, ...]:
    """Three to five sentences that sum up the examination: latency, where the time goes, best recipe, elsewhere."""
    sentences = (_latency, _where, _recipe, _elsewhere)
    return tuple(sentence(examination) for sentence in sentences)


def quality_cost(change: Change) -> str:
    """What a recipe did to quality: 'spearman 0.823 → 0.819, mean cosine 0.991'."""
    parts = [
        f"{metric} {text.number(before)} → {text.number(change.quality_after.get(metric))}"
        for metric, before in change.quality_before.items()
    ]
    if change.distance is not None:
        parts.append(f"mean cosine {text.number(change.distance.mean_cosine)}")
    return ", ".join(parts) or f"quality {text.NOT_MEASURED}"


def sizes(dims: Mapping[str, int], batch: int) -> str:
    """'batch 8, L = 64': the sizes of a task; B is the batch."""
    return ", ".join([f"batch {batch}", *(f"{name} = {size}" for name, size in dims.items() if name != "B")])


def machine(examination: Examination) -> str:
    """This machine with the threads that were used; said once where the device's name has them already."""
    count = examination.measurement.environment.threads
    threads, name = f"{count} thread{'s' if count != 1 else ''}", examination.device.name
    return name if threads in name else f"{name} with {threads}"


def _latency(examination: Examination) -> str:
    m = examination.measurement
    median = m.latency.get("p50")
    if median is None:
        return f"The latency of {m.task} ({sizes(m.dims, m.batch)}) was not measured on {examination.device.name}."
    call = "training step" if m.mode == "training" else "call"
    return (
        f"One {call} of {m.task} ({sizes(m.dims, m.batch)}) takes {text.interval(median)} on "
        f"{machine(examination)}: the median over {median.n} fresh process{'es' if median.n != 1 else ''}."
    )


def _where(examination: Examination) -> str:
    rows = examination.operators()
    if not rows:
        return "Where the time goes inside the task was not measured."
    shares = join.category_shares(rows)
    category, share = next(iter(shares.items()))
    sentence = f"{text.percent(share)} of the operators' time goes into {_CATEGORIES.get(category, category)}"
    floor = join.floor(rows)
    if floor.distance is None:
        return f"{sentence}; the distance to this machine's roofline is not known."
    limit = "arithmetic" if floor.limited_by == "compute" else "memory bandwidth"
    return (
        f"{sentence}. The nearest limit is {limit}: the operators take {text.times(floor.distance)} the least time "
        "that this machine's measured peaks allow."
    )


def _recipe(examination: Examination) -> str:
    changes, best = examination.changes, examination.best_change()
    if not changes:
        return "No recipe to make it faster was tried."
    if best is None or best.speedup is None:
        counts = {v: sum(c.verdict == v for c in changes) for v in ("refused", "not applicable", "failed")}
        told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
        tried = f"{len(changes)} recipe{'s' if len(changes) != 1 else ''}"
        return f"No recipe was kept: of {tried} tried, {told}." if told else f"No recipe of {tried} tried has a speed."
    speedup = text.interval(best.speedup.speedup, text.times)
    return (
        f"The recipe {best.recipe} makes it {speedup} as fast as {best.baseline} and stays within the quality bound: "
        f"{quality_cost(best)}."
    )


def _elsewhere(examination: Examination) -> str:
    fastest = examination.fastest_forecast()
    if fastest is None:
        return "No other device was forecast."
    time = text.between(fastest.total.value_s, fastest.total.low_s, fastest.total.high_s, text.seconds)
    others = sum(f.device != examination.device.name for f in examination.forecasts)
    place = f"Of {others} other devices, {fastest.device} is forecast to be fastest with" if others > 1 else None
    claim = place or f"{fastest.device} is forecast to take"
    alike = sum(f.fits and f.total.low_s <= fastest.total.high_s for f in examination.forecasts) - 1
    here = examination.here()
    alike -= here is not None and here.fits and here.total.low_s <= fastest.total.high_s
    told_apart = f" {alike} of the others cannot be told apart from it." if alike > 0 else ""
    return f"{claim} {time} per step, from physics alone, hence the wide interval.{told_apart}"


_CATEGORIES = {
    "matmul": "matrix products",
    "convolution": "convolutions",
    "normalization": "normalisation",
    "elementwise": "elementwise operators",
    "reduction": "reductions",
    "gather": "look-ups (gather)",
    "copy": "copies",
    "view": "views",
    "random": "random numbers",
    "optimizer": "the optimizer",
    "sort": "sorting",
    "unknown": "operators of unknown kind",
}


def median_of(run: LevelRun | None, quantity: str) -> text.Shown:
    """Median over a run's sessions of a per-session number ('first_call_s'), with its range."""
    values = [float(getattr(session, quantity)) for session in run.sessions] if run else []
    return text.spread(values)


def faults_per_call(run: LevelRun | None) -> float | None:
    """Mean page faults per timed call; None when there is no call."""
    counts = [count for session in run.sessions for count in session.page_faults] if run else []
    return math.fsum(counts) / len(counts) if counts else None
