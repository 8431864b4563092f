"""What the levels share: a tracer's summary, its calibrated cost, and which of the traced calls count as typical."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.measure.record import LayerTime, OperatorTime, Span
from gnomon.measure.timing import Sample

_TRIM = 0.2


@dataclass(frozen=True, slots=True)
class Cost:
    """What tracing one event costs, in CPU seconds: the part inside the event's own times, and all of it.

    uncertainty_s: standard error of `inside_s` over the batches of the calibration.
    """

    inside_s: float
    total_s: float
    uncertainty_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What one traced run saw: times per step, one representative step as spans with parents, events per step.

    ambiguous: spans whose parent the times alone do not decide. cost: of tracing one event, None where it is not taken
    out.
    """

    layers: tuple[LayerTime, ...]
    operators: tuple[OperatorTime, ...]
    spans: tuple[Span, ...]
    ambiguous: int
    cost: Cost | None


def typical(samples: Sequence[Sample]) -> list[int]:
    """The calls whose wall time lies in the middle 60 %. Sums over them stay sums, which medians per part would not."""
    order = sorted(range(len(samples)), key=lambda i: samples[i].wall_ns)
    cut = int(_TRIM * len(order))
    return sorted(order[cut : len(order) - cut])


def median_call(samples: Sequence[Sample]) -> int:
    """The call whose wall time is the (lower) median."""
    middle = statistics.median_low(sample.wall_ns for sample in samples)
    return next(i for i, sample in enumerate(samples) if sample.wall_ns == middle)


def cost_of(inside_s: Sequence[float], total_s: Sequence[float]) -> Cost:
    """Cost per event from a calibration: one mean per batch, in seconds. Never negative."""
    error = statistics.stdev(inside_s) / len(inside_s) ** 0.5
    return Cost(max(statistics.median(inside_s), 0.0), max(statistics.median(total_s), 0.0), error)
