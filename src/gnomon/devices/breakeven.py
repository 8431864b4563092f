"""What sparse and quantized linear layers take on a device against dense ones, measured: when they begin to pay."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from gnomon.core.errors import UsageError
from gnomon.core.records import NOT_EMPTY, POSITIVE, record

Kind = Literal["sparsity", "bits"]
_NEAREST = 3  # measured shapes that a forecast for another shape is taken from


class Ratio(NamedTuple):
    """Time over the dense layer's, with the interval that should hold nine in ten."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Kernel:
    """A product of m rows of k features with a weight of n x k. level: sparsity as a share, or bits of a weight.

    ratio: its time over that of the dense float32 product, low and high: 90 % of the paired rounds.
    """

    m: int
    n: int
    k: int
    level: Annotated[float, POSITIVE]
    ratio: Annotated[float, POSITIVE]
    low: Annotated[float, POSITIVE]
    high: Annotated[float, POSITIVE]


@record("break-even", 1)
@dataclass(frozen=True, slots=True)
class BreakEven:
    """Kernels of one kind measured on one device. library: which ones, with versions. measured_at: ISO 8601, UTC."""

    device: Annotated[str, NOT_EMPTY]
    kind: Kind
    library: str
    threads: int
    measured_at: str
    kernels: Annotated[tuple[Kernel, ...], NOT_EMPTY]

    @property
    def levels(self) -> list[float]:
        return sorted({kernel.level for kernel in self.kernels})

    def ratio(self, m: int, n: int, k: int, level: float) -> Ratio:
        """For any shape: between the measured levels, from the measured shapes that are nearest.

        Bits are not interpolated. Raises UsageError for a level outside of what was measured.
        """
        levels = self.levels
        if level not in levels and (self.kind == "bits" or not levels[0] <= level <= levels[-1]):
            known = ", ".join(f"{one:g}" for one in levels)
            raise UsageError(
                f"the table of {self.device} ({self.measured_at[:10]}) holds {self.kind} {known}; got {level:g}. "
                "Choose one within, or measure again"
            )
        by_shape: dict[tuple[int, int, int], list[Kernel]] = defaultdict(list)
        for kernel in self.kernels:
            by_shape[kernel.m, kernel.n, kernel.k].append(kernel)
        near = sorted(by_shape, key=lambda shape: (_distance(shape, (m, n, k)), shape))[:_NEAREST]
        weights = [1 / (0.05 + _distance(shape, (m, n, k))) ** 2 for shape in near]
        found = [_at(by_shape[shape], level) for shape in near]
        if _distance(near[0], (m, n, k)) == 0:
            return found[0]
        value = math.exp(
            math.fsum(w * math.log(r.value) for w, r in zip(weights, found, strict=True)) / math.fsum(weights)
        )
        return Ratio(value, min(value, *(r.low for r in found)), max(value, *(r.high for r in found)))


def _distance(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """How far two shapes are apart: the length of the difference of their logarithms."""
    return math.hypot(*(math.log(max(a, 1) / max(b, 1)) for a, b in zip(one, other, strict=True)))


def _at(kernels: Sequence[Kernel], level: float) -> Ratio:
    """Between the two levels around, in logarithms; a shape that lacks one of them gives its outermost."""
    ordered = sorted(kernels, key=lambda kernel: kernel.level)
    below = max((x for x in ordered if x.level <= level), key=lambda x: x.level, default=ordered[0])
    above = min((x for x in ordered if x.level >= level), key=lambda x: x.level, default=ordered[-1])
    share = (level - below.level) / (above.level - below.level) if above.level > below.level else 0.0

    def between(a: float, b: float) -> float:
        return a if a == b or share == 0 else math.exp((1 - share) * math.log(a) + share * math.log(b))

    return Ratio(
        between(below.ratio, above.ratio), between(below.low, above.low), between(below.high, above.high)
    )  # fmt: skip
