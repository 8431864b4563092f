"""What pricing an operator yields, whichever model of the device did it."""

import math
from typing import NamedTuple

from gnomon.forecast.record import Bound, Estimate


class Efficiency(NamedTuple):
    """Share of a peak that kernels reach: what to expect, and the range that nine in ten lie in."""

    value: float
    low: float
    high: float


class Efficiencies(NamedTuple):
    """Of a kind of kernel: of the arithmetic peak, of the memory bandwidth."""

    compute: Efficiency
    memory: Efficiency


class Price(NamedTuple):
    """Time on the device with its range, what bounds it, and the useful share that waves and padding leave.

    shared: standard deviation of the logarithm of what is wrong with all operators of this category alike; the rest of
    the range is this operator's own and averages out over many. None: all of it is shared.
    """

    time: Estimate
    bound: Bound
    occupancy: float = 1.0
    shared: float | None = None


NINE_IN_TEN = 1.645  # standard deviations either side that hold 90 % of a normal distribution


def spread(time: Estimate) -> float:
    """Standard deviation of the logarithm of a time whose range holds nine in ten."""
    if time.value_s <= 0 or time.low_s <= 0:
        return 0.0
    return math.log(time.high_s / time.low_s) / (2 * NINE_IN_TEN)
