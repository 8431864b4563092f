"""When queries arrive, and which samples are in them: drawn from seeds, the same on every machine.

The Poisson arrivals are LoadGen's: with the same seed and rate they are the same to the nanosecond. LoadGen draws from
std::mt19937 through libstdc++'s exponential_distribution, and both are simple enough to follow. Its order of samples
depends on how that library shuffles, so ours is our own.
"""

import numpy as np

_WORD = 2.0**32
_CHUNK = 4096


def poisson_ns(qps: float, min_queries: int, min_duration_s: float, seed: int) -> np.ndarray:
    """Arrival times in nanoseconds from the start, the first at 0, with a mean rate of `qps` per second.

    There are at least `min_queries`, and the last is the first of those at or after min_duration_s. Raises ValueError
    for a rate that is not positive, and for a schedule of more queries than memory should hold.
    """
    if not qps > 0 or not np.isfinite(qps):
        raise ValueError(f"target_qps: wanted a positive number of queries per second, got {qps}")
    if min_queries < 1:
        raise ValueError(f"min_queries: wanted at least 1, got {min_queries}")
    if qps * min_duration_s > 1e8:
        raise ValueError(
            f"{qps:g} queries per second for {min_duration_s:g} s are too many to schedule; shorten the run"
        )
    generator = np.random.RandomState(seed % 2**32)  # it alone seeds mt19937 as C++ does
    end_ns = round(min_duration_s * 1e9)
    arrivals = [np.zeros(1, dtype=np.int64)]
    last, count = 0, 1
    while last < end_ns or count < min_queries:
        words = generator.randint(0, 2**32, size=(_CHUNK, 2), dtype=np.uint32).astype(np.float64)
        uniform = np.minimum((words[:, 0] + words[:, 1] * _WORD) / _WORD**2, np.nextafter(1.0, 0.0))
        gaps_ns = (-np.log(1.0 - uniform) / qps * 1e9).astype(np.int64)  # truncated, as a duration_cast does
        arrivals.append(last + np.cumsum(gaps_ns))
        last, count = int(arrivals[-1][-1]), count + _CHUNK
    times = np.concatenate(arrivals)
    needed = max(min_queries, int(np.searchsorted(times, end_ns)) + 1)
    return times[:needed]


class SampleOrder:
    """Draws sample indices from 0 to `count` - 1, uniformly and with replacement."""

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError(f"no samples: wanted at least 1 to draw queries from, got {count}")
        self._count, self._rng = count, np.random.default_rng(seed)
        self._drawn: list[int] = []
        self._next = 0

    def draw(self, size: int) -> tuple[int, ...]:
        """Indices for one query."""
        if len(self._drawn) < self._next + size:
            self._drawn, self._next = self._rng.integers(0, self._count, size=max(_CHUNK, size)).tolist(), 0
        self._next += size
        return tuple(self._drawn[self._next - size : self._next])

    def contiguous(self, size: int) -> tuple[int, ...]:
        """Indices that follow each other from a drawn start, round and round, as in multi-stream."""
        (start,) = self.draw(1)
        return tuple((start + i) % self._count for i in range(size))
