"""Statistics of measurements. The unit of replication is the session (one fresh process), never the single call.

Repeats inside one process share their memory layout, caches and clock, so an interval over them is too narrow;
intervals and verdicts here are taken over one number per session.
"""

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["faster", "slower", "undecided"]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval; `n` is the number of sessions (or samples) behind it.

    low and high are None where the data bound nothing, as with a single session.
    """

    value: float
    low: float | None
    high: float | None
    level: float
    n: int


@dataclass(frozen=True, slots=True)
class RatioTest:
    """How much faster B is than A: `speedup.value` = time of A over time of B, paired by session.

    detectable: the smallest speed-up that this many sessions find with 80 % power, were their spread the true one; a
    true change below it can go unnoticed. verdict: 'faster' or 'slower' when the interval leaves 1, else 'undecided'.
    """

    speedup: Interval
    detectable: float | None
    verdict: Verdict


def percentile(samples: Sequence[float], q: float) -> float:
    """The q-th percentile (0..100), linear between order statistics. Raises ValueError for no samples."""
    return float(np.percentile(_finite(samples), q))


def trimmed_mean(samples: Sequence[float], fraction: float = 0.2) -> float:
    """Mean after dropping `fraction` of the samples at each end (0.2 as in MLModelScope's analyses).

    Raises ValueError unless 0 <= fraction < 0.5.
    """
    if not 0 <= fraction < 0.5:
        raise ValueError(f"fraction must be in [0, 0.5); got {fraction}")
    ordered = np.sort(_finite(samples))
    cut = int(fraction * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean. One value gives an unbounded interval, not an error."""
    _check_level(level)
    array = _finite(values)
    n, mean = len(array), float(array.mean())
    if n == 1:
        return Interval(mean, None, None, level, 1)
    half = t_quantile(0.5 + level / 2, n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, level, n)


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[[np.ndarray], float] = np.median,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of `statistic`; with few values it is the range that they show, and no wider.

    One value gives an unbounded interval. Raises ValueError for no values and for one that is not finite.
    """
    _check_level(level)
    array = _finite(values)
    if len(array) == 1:
        return Interval(float(statistic(array)), None, None, level, 1)
    rng = np.random.default_rng(seed)
    drawn = array[rng.integers(0, len(array), size=(resamples, len(array)))]
    estimates = np.apply_along_axis(statistic, 1, drawn)
    low, high = np.percentile(estimates, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(statistic(array)), float(low), float(high), level, len(array))


def hierarchical_interval(
    sessions: Sequence[Sequence[float]],
    statistic: Callable[[np.ndarray], float],
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of a statistic of the pooled calls: sessions are drawn first, then calls within each.

    Right for percentiles, which a single session rarely has enough calls for. A single session gives an unbounded
    interval: it cannot show what differs between sessions. Raises ValueError for no sessions and for an empty one.
    """
    _check_level(level)
    arrays = [_finite(session) for session in sessions]
    if not arrays:
        raise ValueError("wanted at least 1 session; got 0")
    if len(arrays) == 1:
        return Interval(float(statistic(arrays[0])), None, None, level, 1)
    rng = np.random.default_rng(seed)
    estimates = []
    for _ in range(resamples):
        chosen = [arrays[i] for i in rng.integers(0, len(arrays), size=len(arrays))]
        pooled = np.concatenate([a[rng.integers(0, len(a), size=len(a))] for a in chosen])
        estimates.append(statistic(pooled))
    low, high = np.percentile(estimates, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(statistic(np.concatenate(arrays))), float(low), float(high), level, len(arrays))


def ratio_test(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> RatioTest:
    """Is B faster than A? One time per session for each, in the same order of sessions (pairs are interleaved runs).

    A paired t interval of the mean log ratio: multiplicative noise common to a session cancels.
    Raises ValueError when the lengths differ, are zero, or a time is not positive.
    """
    if len(a) != len(b):
        raise ValueError(f"wanted one time of each per session; got {len(a)} of A and {len(b)} of B")
    _check_level(level)
    logs = _logs(a) - _logs(b)
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return _ratio_test(float(logs.mean()), error, len(logs) - 1, len(logs), level)


def unpaired_ratio_test(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> RatioTest:
    """The same question for sessions that were not interleaved: Welch's interval of the difference of mean logs.

    Whatever drifted between the two measurements is part of the ratio; prefer `ratio_test` on interleaved runs.
    Raises ValueError when either side is empty or a time is not positive.
    """
    _check_level(level)
    logs = [_logs(a), _logs(b)]
    mean, n = float(logs[0].mean() - logs[1].mean()), min(len(a), len(b))
    if n < 2:
        return _ratio_test(mean, math.nan, 0, n, level)
    parts = [float(side.var(ddof=1)) / len(side) for side in logs]
    error = math.sqrt(sum(parts))
    spread = sum(part**2 / (len(side) - 1) for part, side in zip(parts, logs, strict=True))
    freedom = max(1, int(sum(parts) ** 2 / spread)) if spread > 0 else n - 1  # Welch-Satterthwaite, rounded down
    return _ratio_test(mean, error, freedom, n, level)


def _ratio_test(mean_log: float, error: float, freedom: int, n: int, level: float) -> RatioTest:
    if freedom < 1:
        return RatioTest(Interval(math.exp(mean_log), None, None, level, n), None, "undecided")
    quantile = t_quantile(0.5 + level / 2, freedom)
    low, high = math.exp(mean_log - quantile * error), math.exp(mean_log + quantile * error)
    detectable = math.exp(detectable_errors(freedom, level) * error)
    verdict: Verdict = "faster" if low > 1 else "slower" if high < 1 else "undecided"
    return RatioTest(Interval(math.exp(mean_log), low, high, level, n), detectable, verdict)


def _logs(times: Sequence[float]) -> np.ndarray:
    array = _finite(times)
    if not (array > 0).all():
        raise ValueError("times must be positive; is the clock coarser than the call? Repeat the call inside the timer")
    return np.log(array)


@functools.cache
def detectable_errors(freedom: int, level: float = 0.95, power: float = 0.8) -> float:
    """How many standard errors a true effect must have, to be found on its side with the given power.

    The shift of the noncentral t distribution that puts `power` beyond the quantile of `level`. The usual sum of two
    t quantiles promises too much for few sessions: with three of them it has 77 % power where it says 80 %.
    """
    quantile = t_quantile(0.5 + level / 2, freedom)
    # P(T > q) is the mean of Phi(shift - q s) over s, the estimated spread over the true one: chi / sqrt(freedom)
    s = np.linspace(0, 1 + 9 / math.sqrt(freedom), 802)[1:] - (0.5 + 4.5 / math.sqrt(freedom)) / 801  # midpoints
    log_density = (freedom - 1) * np.log(s) - freedom * s**2 / 2
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    low, high = 0.0, 10 * quantile
    for _ in range(40):
        middle = (low + high) / 2
        found = sum(w * 0.5 * math.erfc((quantile * x - middle) / math.sqrt(2)) for x, w in zip(s, weight, strict=True))
        low, high = (middle, high) if found < power else (low, middle)
    return (low + high) / 2


def t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t for a whole number of degrees of freedom, by bisection of the closed-form CDF.

    The CDF as a finite sum: Abramowitz & Stegun 26.7.3 and 26.7.4; beyond 1000 degrees, where the sum is long, the
    first terms of the expansion 26.7.5. Raises ValueError unless 0 < p < 1 and df >= 1.
    """
    if not 0 < p < 1 or df < 1:
        raise ValueError(f"wanted 0 < p < 1 and df >= 1; got {p=} and {df=}")
    if p < 0.5:
        return -t_quantile(1 - p, df)
    if p == 0.5:
        return 0.0
    if df > 1000:
        x = statistics.NormalDist().inv_cdf(p)
        second, third = (x**3 + x) / 4, (5 * x**5 + 16 * x**3 + 3 * x) / 96
        return x + second / df + third / df**2 + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384 / df**3
    low, high = 0.0, 1.0
    while _t_cdf(high, df) < p:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def _t_cdf(t: float, df: int) -> float:
    angle = math.atan2(t, math.sqrt(df))
    cos2, term, total = math.cos(angle) ** 2, 1.0, 1.0
    first = 1 if df % 2 == 0 else 2
    for k in range(first, df - 1, 2):
        term *= k / (k + 1) * cos2
        total += term
    if df % 2 == 0:
        return 0.5 + 0.5 * math.sin(angle) * total
    inner = 0.0 if df == 1 else math.sin(angle) * math.cos(angle) * total
    return 0.5 + (angle + inner) / math.pi


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.size < 1:
        raise ValueError("wanted at least 1 value; got 0")
    if not np.isfinite(array).all():
        raise ValueError(f"wanted finite values; got {array[~np.isfinite(array)][0]}")
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"wanted a confidence level between 0 and 1, such as 0.95; got {level}")
