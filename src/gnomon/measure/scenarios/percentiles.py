"""Percentiles of latencies as LoadGen takes them, and how sure they are.

LoadGen takes an element, never a mean of two: the one at rank floor(n p), counted from 0, of the ascending latencies.
"""

import math
from collections.abc import Sequence

import numpy as np

from gnomon.core.stats import Interval

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p97": 0.97, "p99": 0.99, "p99.9": 0.999}
_Z = {0.9: 1.6448536269514722, 0.95: 1.959963984540054, 0.99: 2.5758293035489004}


def percentile(ordered: Sequence[int] | np.ndarray, p: float) -> int:
    """The latency at rank floor(n p) of `ordered` (ascending). Raises ValueError for none, or p outside of [0, 1)."""
    if len(ordered) == 0:
        raise ValueError("a percentile of no latencies is not known")
    if not 0 <= p < 1:
        raise ValueError(f"percentile: wanted a share of at least 0 and below 1 (0.99 is the 99th), got {p}")
    return int(ordered[int(len(ordered) * p)])


def percentile_interval(latencies_ns: Sequence[int] | np.ndarray, p: float, level: float = 0.95) -> Interval:
    """The percentile in seconds, with an interval between two of the latencies. latencies_ns: in the order of issue.

    The number of latencies below the true percentile has the mean n p and the variance n p (1 - p) tau. tau is 1 when
    queries are independent; behind a queue slow ones come together, and tau is the integrated autocorrelation time of
    'is this one above the percentile'. An end that lies beyond the slowest or fastest latency is None: not known.
    """
    array = np.asarray(latencies_ns, dtype=np.int64)
    n, ordered = len(array), np.sort(array)
    value = percentile(ordered, p)
    tau = correlation_time(array > value)
    half = _Z[level] * math.sqrt(n * p * (1 - p) * tau)
    low, high = math.floor(n * p - half), math.ceil(n * p + half)
    return Interval(
        value * 1e-9,
        float(ordered[low] * 1e-9) if low >= 0 else None,
        float(ordered[high] * 1e-9) if high < n else None,
        level,
        n,
    )


def correlation_time(series: np.ndarray) -> float:
    """1 + 2 * sum of autocorrelations, summed as long as neighbouring pairs are positive (Geyer 1992); at least 1."""
    x = series.astype(np.float64) - series.mean()
    n = len(x)
    variance = float(x @ x)
    if n < 4 or variance == 0.0:
        return 1.0
    size = 1 << (2 * n - 1).bit_length()  # padded, so that the ends do not meet
    spectrum = np.fft.rfft(x, size)
    correlation = np.fft.irfft(spectrum * spectrum.conj(), size)[:n] / variance
    pairs = correlation[0 : n - n % 2 : 2] + correlation[1:n:2]
    negative = np.flatnonzero(pairs <= 0)
    kept = pairs[: negative[0]] if len(negative) else pairs
    return max(1.0, 2.0 * float(kept.sum()) - 1.0)
