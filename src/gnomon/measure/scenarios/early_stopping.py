"""Early stopping of MLPerf Inference: what a run of n queries says of a percentile, with a stated confidence.

If the true share of slow queries were as large as 1 - p, at most t slow ones among n would be seen with probability
BinomCDF(t; n, 1 - p). As long as that is no more than 1 - confidence, t slow queries still prove the percentile.
MLCommons inference rules, appendix "Early Stopping"; the incomplete beta function by its continued fraction,
DLMF 8.17.22, evaluated as Lentz does.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MULTI_STREAM = 0.99  # single-stream runs also state this percentile, from which LoadGen infers multi-stream
_LEAST_OVER = 1  # an estimate needs room to discard one query
_TERMS = 100_000
_PRECISION = 1e-15
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """What early stopping says of a run.

    is_met: enough queries, and for server few enough of them above the bound. queries_needed: more queries (all below
    the bound) that would have met it; 0 when it is met. over_latency: queries above the bound; None without a bound.
    discarded: slowest queries that the estimate leaves out. estimate_s: the latency of which the percentile is below
    with that confidence; None without enough queries, and for server, which has a verdict instead.
    multi_stream_estimate_s: single-stream only: the same for the 99th percentile.
    """

    is_met: bool
    percentile: float
    confidence: float
    queries_needed: int
    over_latency: int | None = None
    discarded: int | None = None
    estimate_s: float | None = None
    multi_stream_estimate_s: float | None = None


def over_latency_budget(queries: int, percentile: float, confidence: float = 0.99) -> int | None:
    """The most slow queries among `queries` that still prove the percentile: max t with BinomCDF(t) <= 1 - confidence.

    None when not even a run without slow queries would prove it. Raises ValueError for arguments out of range.
    """
    _check(percentile, confidence)
    if queries < 0:
        raise ValueError(f"a number of queries is not negative; got {queries}")
    if not _proves(0, queries, percentile, confidence):
        return None
    low, high = 0, queries  # low proves it, high does not: with all queries slow the CDF is 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _proves(middle, queries, percentile, confidence) else (low, middle)
    return low


@functools.lru_cache(maxsize=1024)
def least_queries(over_latency: int, percentile: float, confidence: float = 0.99) -> int:
    """The fewest queries that prove the percentile when `over_latency` of them are slow.

    Raises ValueError for arguments out of range.
    """
    _check(percentile, confidence)
    if over_latency < 0:
        raise ValueError(f"a number of slow queries is not negative; got {over_latency}")
    low, step = over_latency, 1  # low does not prove it
    while not _proves(over_latency, low + step, percentile, confidence):
        low, step = low + step, 2 * step
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _proves(over_latency, middle, percentile, confidence) else (middle, high)
    return high


def estimate(ordered_ns: Sequence[int] | np.ndarray, percentile: float, confidence: float = 0.99) -> EarlyStopping:
    """The early-stopping estimate of a percentile, as for single- and multi-stream. ordered_ns: latencies, ascending.

    LoadGen leaves out one query fewer than the budget allows, and so do we.
    """
    queries, least = len(ordered_ns), least_queries(_LEAST_OVER, percentile, confidence)
    if queries < least:
        return EarlyStopping(False, percentile, confidence, least - queries)
    budget = over_latency_budget(queries, percentile, confidence) or 0
    value_s = int(ordered_ns[queries - budget]) * 1e-9
    return EarlyStopping(True, percentile, confidence, 0, discarded=budget - 1, estimate_s=value_s)


def single_stream(ordered_ns: Sequence[int] | np.ndarray, percentile: float, confidence: float = 0.99) -> EarlyStopping:
    """`estimate`, and the 99th percentile's estimate where there are enough queries for it."""
    own, other = estimate(ordered_ns, percentile, confidence), estimate(ordered_ns, _MULTI_STREAM, confidence)
    if not own.is_met:
        return own
    return EarlyStopping(
        True,
        percentile,
        confidence,
        0,
        discarded=own.discarded,
        estimate_s=own.estimate_s,
        multi_stream_estimate_s=other.estimate_s,
    )


def server(queries: int, over_latency: int, percentile: float, confidence: float = 0.99) -> EarlyStopping:
    """Whether `over_latency` slow queries among `queries` prove the percentile, and how many more would."""
    if not 0 <= over_latency <= queries:
        raise ValueError(f"{over_latency} slow queries among {queries} cannot be")
    needed = max(0, least_queries(over_latency, percentile, confidence) - queries)
    return EarlyStopping(needed == 0, percentile, confidence, needed, over_latency=over_latency)


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """P(X <= successes) for X binomial: the regularized incomplete beta I_{1-q}(n - t, t + 1)."""
    if successes < 0:
        return 0.0
    if successes >= trials:
        return 1.0
    return regularized_beta(1.0 - probability, trials - successes, successes + 1)


def regularized_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b) for a, b > 0 and 0 <= x <= 1."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast on the other side only
        return 1.0 - regularized_beta(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d_1 / (1 + d_2 / (1 + ...)), with d of DLMF 8.17.23."""
    value, c, d = 1.0, 1.0, 0.0
    for k in range(1, _TERMS):
        m, is_odd = divmod(k, 2)
        if is_odd:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / (1.0 + term * d or _TINY)
        c = 1.0 + term / c or _TINY
        value *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            return value
    raise ArithmeticError(f"I_{x}({a}, {b}) did not converge in {_TERMS} terms")


def _proves(over_latency: int, queries: int, percentile: float, confidence: float) -> bool:
    return binomial_cdf(over_latency, queries, 1.0 - percentile) <= 1.0 - confidence


def _check(percentile: float, confidence: float) -> None:
    for name, value in (("percentile", percentile), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: wanted a share between 0 and 1 (0.99 is the 99th percentile), got {value}")
