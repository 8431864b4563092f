"""Statistics of measurements. The unit of replication is the session (one fresh process), never the single call.

Repeats inside one process share their memory layout, caches and clock, so an interval over them is too narrow;
intervals and verdicts here are taken over one number per session.
"""

import math
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

    detectable: the smallest speed-up that this many sessions with this spread find with 80 % power; a true change
    below it can go unnoticed. verdict: 'faster' or 'slower' when the interval leaves 1, else 'undecided'.
    """

    speedup: Interval
    detectable: float | None
    verdict: Verdict


def percentile(samples: Sequence[float], q: float) -> float:
    """The q-th percentile (0..100), linear between order statistics. Raises ValueError for no samples."""
    _need(samples, 1)
    return float(np.percentile(np.asarray(samples, dtype=float), q))


def trimmed_mean(samples: Sequence[float], fraction: float = 0.2) -> float:
    """Mean after dropping `fraction` of the samples at each end (0.2 as in MLModelScope's analyses).

    Raises ValueError unless 0 <= fraction < 0.5.
    """
    _need(samples, 1)
    if not 0 <= fraction < 0.5:
        raise ValueError(f"fraction must be in [0, 0.5); got {fraction}")
    ordered = np.sort(np.asarray(samples, dtype=float))
    cut = int(fraction * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean. One value gives an unbounded interval, not an error."""
    _need(values, 1)
    array = np.asarray(values, dtype=float)
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
    """Percentile bootstrap interval of `statistic`; with few values it is the range that they show, and no wider."""
    _need(values, 1)
    array = np.asarray(values, dtype=float)
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

    Right for percentiles, which a single session rarely has enough calls for. Raises ValueError for no sessions.
    """
    _need(sessions, 1)
    arrays = [np.asarray(session, dtype=float) for session in sessions]
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
    _need(a, 1)
    _need_positive(a, b)
    logs = np.log(np.asarray(a, dtype=float)) - np.log(np.asarray(b, dtype=float))
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return _ratio_test(float(logs.mean()), error, len(logs) - 1, len(logs), level)


def unpaired_ratio_test(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> RatioTest:
    """The same question for sessions that were not interleaved: Welch's interval of the difference of mean logs.

    Whatever drifted between the two measurements is part of the ratio; prefer `ratio_test` on interleaved runs.
    Raises ValueError when either side is empty or a time is not positive.
    """
    _need(a, 1)
    _need(b, 1)
    _need_positive(a, b)
    logs = [np.log(np.asarray(side, dtype=float)) for side in (a, b)]
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
    detectable = math.exp((quantile + t_quantile(0.8, freedom)) * error)
    verdict: Verdict = "faster" if low > 1 else "slower" if high < 1 else "undecided"
    return RatioTest(Interval(math.exp(mean_log), low, high, level, n), detectable, verdict)


def _need_positive(*sides: Sequence[float]) -> None:
    if not all(value > 0 for side in sides for value in side):
        raise ValueError("times must be positive; is the clock coarser than the call? Repeat the call inside the timer")


def t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t for a whole number of degrees of freedom, by bisection of the closed-form CDF.

    The CDF as a finite sum: Abramowitz & Stegun 26.7.3 and 26.7.4. Raises ValueError unless 0 < p < 1 and df >= 1.
    """
    if not 0 < p < 1 or df < 1:
        raise ValueError(f"wanted 0 < p < 1 and df >= 1; got {p=} and {df=}")
    if p < 0.5:
        return -t_quantile(1 - p, df)
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


def _need(values: Sequence[object], least: int) -> None:
    if len(values) < least:
        raise ValueError(f"wanted at least {least} value(s); got {len(values)}")
