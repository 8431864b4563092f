"""What the levels share: a tracer's summary, its calibrated cost, and which of the traced calls count as typical."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from gnomon.measure.record import LayerTime, OperatorTime, Span
from gnomon.measure.timing import Sample

_TRIM = 0.2


class Tracer(Protocol):
    """What a level brings to a session: what it times untraced beside its traced calls, and how it traces them.

    plain: the untraced call. step: the traced one, inside of `scope`. rounds: how many times over the usual number of
    calls is wanted, for a tracer that looks at another part in each.
    """

    plain: Callable[[], Any]
    rounds: int

    def step(self) -> Any: ...

    def scope(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True, slots=True)
class Cost:
    """What tracing one event costs, in CPU seconds: the part inside the event's own times, and all of it.

    uncertainty_s: standard error of `inside_s` over the batches of the calibration.
    """

    inside_s: float
    total_s: float
    uncertainty_s: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What one counter counted in each call, or why there is none. running: mean share of the time that it counted."""

    name: str
    values: tuple[float, ...]
    running: float | None
    unavailable: str | None


@dataclass(frozen=True, slots=True)
class StageTimes:
    """One stage of the application in every call: wall seconds, CPU seconds of the process."""

    name: str
    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one span; cpu_s None where only wall time is known."""

    wall_s: float
    cpu_s: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What one traced run saw: times per step, one representative step as spans with parents, events per step.

    ambiguous: spans whose parent the times alone do not decide. cost: of tracing one event, None where it is not taken
    out. stages: of the application level. counters: of the hardware level. remarks: what the user should know.
    """

    layers: tuple[LayerTime, ...]
    operators: tuple[OperatorTime, ...]
    spans: tuple[Span, ...]
    ambiguous: int
    cost: Cost | None
    stages: tuple[StageTimes, ...] = ()
    counters: tuple[Counts, ...] = ()
    remarks: tuple[str, ...] = ()
    typical: tuple[Times, ...] = ()


def typical(samples: Sequence[Sample]) -> list[int]:
    """The calls whose wall time lies in the middle 60 %. Sums over them stay sums, which medians per part would not."""
    order = sorted(range(len(samples)), key=lambda i: samples[i].wall_ns)
    cut = int(_TRIM * len(order))
    return sorted(order[cut : len(order) - cut])


def typical_times(calls: Sequence[Sequence[Span]], like: Sequence[Span]) -> tuple[Times, ...]:
    """Median times of each span of `like` over the calls that have the same spans in the same order.

    A single call, on a machine that others use, has some spans in which the process had to wait.
    """
    wanted = [(span.level, span.name) for span in like]
    same = [spans for spans in calls if [(span.level, span.name) for span in spans] == wanted]
    times = []
    for spans in zip(*same, strict=True):
        cpu = [span.cpu_s for span in spans if span.cpu_s is not None]
        times.append(Times(statistics.median(s.wall_s for s in spans), statistics.median(cpu) if cpu else None))
    return tuple(times)


def median_call(samples: Sequence[Sample]) -> int:
    """The call whose wall time is the (lower) median."""
    middle = statistics.median_low(sample.wall_ns for sample in samples)
    return next(i for i, sample in enumerate(samples) if sample.wall_ns == middle)


def cost_of(inside_s: Sequence[float], total_s: Sequence[float]) -> Cost:
    """Cost per event from a calibration: one mean per batch, in seconds. Never negative."""
    error = statistics.stdev(inside_s) / len(inside_s) ** 0.5
    return Cost(max(statistics.median(inside_s), 0.0), max(statistics.median(total_s), 0.0), error)
