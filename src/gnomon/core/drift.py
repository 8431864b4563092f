"""Does a series of times drift? A trend (Mann-Kendall, Theil-Sen) or a step (the largest t over all places of it).

Made for short series, such as one time per session: the trend's p-value is exact up to 30 values without ties, the
step's comes from simulated series of the same length.
"""

import functools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_EXACT_UP_TO = 30
_LEAST_FOR_STEP = 5
_SIDE = 2  # values on either side of a step: one value that stands out is an outlier, not a level
_SIMULATED = 20_000


class Trend(NamedTuple):
    """slope: change from one value to the next (Theil-Sen: the median over all pairs). p: of no trend, two-sided."""

    slope: float
    p: float


class Step(NamedTuple):
    """A change of level. at: index of the first value behind it. change: mean after less mean before. p: of none."""

    at: int
    change: float
    p: float


def trend(values: Sequence[float]) -> Trend:
    """Mann-Kendall test and Theil-Sen slope (Mann 1945, doi 10.2307/1907187; Sen 1968, doi 10.2307/2285891).

    Raises ValueError for fewer than 3 values or one that is not finite.
    """
    x = _series(values, 3)
    i, j = np.triu_indices(len(x), 1)
    differences = x[j] - x[i]
    s = int(np.sign(differences).sum())
    return Trend(float(np.median(differences / (j - i))), _kendall_p(s, x))


def _kendall_p(s: int, x: np.ndarray) -> float:
    n = len(x)
    _, ties = np.unique(x, return_counts=True)
    if n <= _EXACT_UP_TO and len(ties) == n:
        counts = _inversions(n)
        fewer = (n * (n - 1) // 2 - abs(s)) // 2  # discordant pairs of an order at least this sorted
        return min(1.0, 2 * sum(counts[: fewer + 1]) / math.factorial(n))
    variance = (n * (n - 1) * (2 * n + 5) - sum(int(t) * (int(t) - 1) * (2 * int(t) + 5) for t in ties)) / 18
    return math.erfc(abs(s) / math.sqrt(2 * variance)) if variance > 0 else 1.0


@functools.cache
def _inversions(n: int) -> tuple[int, ...]:
    """How many orders of n values have 0, 1, 2 ... pairs the wrong way round."""
    counts = [1]
    for size in range(2, n + 1):
        grown = [0] * (len(counts) + size - 1)
        for pairs, count in enumerate(counts):
            for more in range(size):
                grown[pairs + more] += count
        counts = grown
    return tuple(counts)


def step(values: Sequence[float]) -> Step:
    """The likeliest place of a change of level, and whether there is one: the largest two-sample t over all places.

    Raises ValueError for fewer than 5 values or one that is not finite.
    """
    x = _series(values, _LEAST_FOR_STEP)
    largest = _t_by_place(x[None, :])[0]
    at = int(np.argmax(largest)) + _SIDE
    change = float(x[at:].mean() - x[:at].mean())
    if not largest.max() > 0:
        return Step(at, change, 1.0)
    exceeded = int((_largest_by_chance(len(x)) >= largest.max()).sum())
    return Step(at, change, (1 + exceeded) / (1 + _SIMULATED))


@functools.cache
def _largest_by_chance(n: int) -> np.ndarray:
    return np.asarray(_t_by_place(np.random.default_rng(0).standard_normal((_SIMULATED, n))).max(axis=1))


def _t_by_place(x: np.ndarray) -> np.ndarray:
    """|t| of the difference of means before and after each place, one row per series; infinite for a clean step."""
    n = x.shape[1]
    x = x - x.mean(axis=1, keepdims=True)
    place = np.arange(_SIDE, n - _SIDE + 1)
    before = x.cumsum(axis=1)[:, place - 1]
    between = before**2 * (1 / place + 1 / (n - place))  # sum of squares between the two sides
    total = (x**2).sum(axis=1, keepdims=True)
    within = np.maximum(total - between, 1e-12 * total)
    return np.sqrt(np.divide(between * (n - 2), within, out=np.zeros_like(between), where=within > 0))


def change_within(series: Sequence[float]) -> float:
    """How much longer the last call takes than the first along the Theil-Sen line, as a fraction of the median.

    Raises ValueError for fewer than 3 values, one that is not finite, or a median that is not positive.
    """
    found, middle = trend(series), statistics.median(series)
    if middle <= 0:
        raise ValueError(f"wanted times, which are positive; their median is {middle}")
    return found.slope * (len(series) - 1) / middle


def _series(values: Sequence[float], least: int) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if len(x) < least:
        raise ValueError(f"wanted at least {least} values to look for a drift; got {len(x)}")
    if not np.isfinite(x).all():
        raise ValueError(f"wanted finite values; got {x[~np.isfinite(x)][0]}")
    return x
