"""Statistics of measurements. The unit of replication is the session (one fresh process), never the single call.

Repeats inside one process share their memory layout, caches and clock, so an interval over them is too narrow;
intervals and verdicts here are taken over one number per session.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from gnomon.core.looks import Looks
from gnomon.core.student import chi_square_quantile, detectable_errors, t_quantile

Verdict = Literal["faster", "slower", "no difference", "undecided"]


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
    true change below it can go unnoticed.
    verdict: 'no difference' when `equivalence` lies within `margin` (0.02: between 1 / 1.02 and 1.02; a difference that
    is real but smaller than the margin is none), else 'faster' or 'slower' when `speedup` leaves 1, else 'undecided'.
    equivalence: the interval whose level makes that two one-sided tests (Schuirmann 1987, doi 10.1007/BF01068419), each
    with the error that `speedup` has on both sides together. None, as `margin`, where equality was not asked for.
    """

    speedup: Interval
    detectable: float | None
    verdict: Verdict
    margin: float | None = None
    equivalence: Interval | None = None


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


def fast_half_mean(samples: Sequence[float]) -> float:
    """Mean of the faster half of the calls (the middle one included): what a session's calls take undisturbed.

    What else runs on a machine only ever adds time, and to some calls; leaving the slower half out leaves that out. Its
    ratio between two variants spreads less than that of medians next to a busy process
    (benchmarks/compare_power.py). A change that only slow calls show is not seen by it.
    Raises ValueError for no samples.
    """
    ordered = np.sort(_finite(samples))
    return float(ordered[: (len(ordered) + 1) // 2].mean())


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean. One value gives an unbounded interval, not an error."""
    _check_level(level)
    array = _finite(values)
    n, mean = len(array), float(array.mean())
    if n == 1:
        return Interval(mean, None, None, level, 1)
    half = t_quantile(0.5 + level / 2, n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, level, n)


def sd_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The standard deviation (over n - 1) with its chi-square interval; right for values that are about normal.

    One value gives 0 with an unbounded interval: it shows no spread. Raises ValueError for no values.
    """
    _check_level(level)
    array = _finite(values)
    n = len(array)
    if n == 1:
        return Interval(0.0, None, None, level, 1)
    sd = float(array.std(ddof=1))
    low, high = (sd * math.sqrt((n - 1) / chi_square_quantile(p, n - 1)) for p in (0.5 + level / 2, 0.5 - level / 2))
    return Interval(sd, low, high, level, n)


def binomial_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """A share with its exact interval (Clopper & Pearson 1934, doi 10.1093/biomet/26.4.404).

    Raises ValueError unless 0 <= successes <= trials and trials >= 1.
    """
    _check_level(level)
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"wanted successes among at least 1 trial; got {successes} of {trials}")

    def bound(wanted: float, tail: Callable[[float], float]) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if tail(middle) < wanted else (low, middle)
        return (low + high) / 2

    def at_least(p: float) -> float:
        return sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(successes, trials + 1))

    def more(p: float) -> float:
        return sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(successes + 1, trials + 1))

    outside = (1 - level) / 2
    low = 0.0 if successes == 0 else bound(outside, at_least)
    high = 1.0 if successes == trials else bound(1 - outside, more)
    return Interval(successes / trials, low, high, level, trials)


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


def ratio_test(
    a: Sequence[float],
    b: Sequence[float],
    level: float = 0.95,
    *,
    margin: float | None = None,
    looks: Looks | None = None,
) -> RatioTest:
    """Is B faster than A? One time per session for each, in the same order of sessions (pairs are interleaved runs).

    A paired t interval of the mean log ratio: multiplicative noise common to a session cancels. margin: the relative
    difference up to which A and B count as equal. looks: where the sessions were added until the answer was known, all
    sizes at which it was looked for; `level` then holds for all of them together.
    Raises ValueError when the lengths differ, are zero, or a time is not positive.
    """
    if len(a) != len(b):
        raise ValueError(f"wanted one time of each per session; got {len(a)} of A and {len(b)} of B")
    logs = _logs(a) - _logs(b)
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return _ratio_test(_Effect(float(logs.mean()), error, len(logs) - 1, len(logs)), level, margin, looks)


def unpaired_ratio_test(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, *, margin: float | None = None
) -> RatioTest:
    """The same question for sessions that were not interleaved: Welch's interval of the difference of mean logs.

    Whatever drifted between the two measurements is part of the ratio; prefer `ratio_test` on interleaved runs.
    Raises ValueError when either side is empty or a time is not positive.
    """
    logs = [_logs(a), _logs(b)]
    mean, n = float(logs[0].mean() - logs[1].mean()), min(len(a), len(b))
    if n < 2:
        return _ratio_test(_Effect(mean, math.nan, 0, n), level, margin, None)
    parts = [float(side.var(ddof=1)) / len(side) for side in logs]
    error = math.sqrt(sum(parts))
    spread = sum(part**2 / (len(side) - 1) for part, side in zip(parts, logs, strict=True))
    freedom = max(1, int(sum(parts) ** 2 / spread)) if spread > 0 else n - 1  # Welch-Satterthwaite, rounded down
    return _ratio_test(_Effect(mean, error, freedom, n), level, margin, None)


class _Effect(NamedTuple):
    """A mean log ratio with its standard error."""

    mean_log: float
    error: float
    freedom: int
    n: int

    def interval(self, level: float, nominal: float) -> Interval:
        """nominal: the level that the quantile is taken at; level: what is promised over all looks."""
        if self.freedom < 1:
            return Interval(math.exp(self.mean_log), None, None, level, self.n)
        half = t_quantile(0.5 + nominal / 2, self.freedom) * self.error
        return Interval(math.exp(self.mean_log), math.exp(self.mean_log - half), math.exp(self.mean_log + half), level,
                        self.n)  # fmt: skip


def _ratio_test(effect: _Effect, level: float, margin: float | None, looks: Looks | None) -> RatioTest:
    _check_level(level)
    if margin is not None and not 0 < margin < 1:
        raise ValueError(f"wanted a margin between 0 and 1, such as 0.02 for 2 %; got {margin}")

    def nominal(wanted: float) -> float:
        return wanted if looks is None else looks.nominal(wanted)

    speedup = effect.interval(level, nominal(level))
    equivalence = None
    if margin is not None:
        both = max(2 * level - 1, 0.01)  # 5 % on each side of 90 %, as 2.5 % on each side of 95 %
        equivalence = effect.interval(both, nominal(both))
    detectable = None
    if effect.freedom >= 1:
        detectable = math.exp(detectable_errors(effect.freedom, nominal(level)) * effect.error)
    return RatioTest(speedup, detectable, _verdict(speedup, equivalence, margin), margin, equivalence)


def _verdict(speedup: Interval, equivalence: Interval | None, margin: float | None) -> Verdict:
    if speedup.low is None or speedup.high is None:
        return "undecided"
    if margin is not None and equivalence is not None and equivalence.low is not None and equivalence.high is not None:
        if 1 / (1 + margin) < equivalence.low and equivalence.high < 1 + margin:
            return "no difference"
    return "faster" if speedup.low > 1 else "slower" if speedup.high < 1 else "undecided"


def _logs(times: Sequence[float]) -> np.ndarray:
    array = _finite(times)
    if not (array > 0).all():
        raise ValueError("times must be positive; is the clock coarser than the call? Repeat the call inside the timer")
    return np.log(array)


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
