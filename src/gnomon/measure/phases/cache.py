"""What an LRU cache keeps of a stream of rows, for every capacity at once: stack distances (Mattson et al. 1970).

The stack distance of an access is how many different rows were touched since its row was last touched. An LRU cache of
C rows hits exactly where the distance is below C. All distances of e accesses are found in O(e log e) array operations,
so a stream of a million accesses takes about a second.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnomon.core.errors import UsageError

COLD = -1  # distance of a row's first access, which no cache of any size hits


def stack_distances(ids: Any) -> NDArray[np.int64]:
    """[e], the stack distance of each access, COLD for a first one. ids: [e] whole numbers, the rows in order.

    Raises UsageError for ids that are not one row of whole numbers.
    """
    stream = np.asarray(ids)
    if stream.ndim != 1 or (stream.size and not np.issubdtype(stream.dtype, np.integer)):
        raise UsageError(f"a stream of accesses is one row of whole numbers; got {stream.dtype}, {stream.shape}")
    before = _previous(stream)
    # Between its last access at p and now at t, a row is counted once: at its first access after p, the one whose own
    # previous access is at p or earlier. All p + 1 accesses up to p have such a previous one, so of all before t that
    # have one, these are taken off.
    distances = _earlier_and_not_larger(before) - (before + 1)
    distances[before < 0] = COLD
    return distances


@dataclass(frozen=True)
class Reuse:
    """How often rows come back, and after how many others. distances: of each access, see `stack_distances`.

    uses: accesses of each row that is touched at all, the most used first.
    """

    distances: NDArray[np.int64]
    uses: NDArray[np.int64]

    @classmethod
    def of(cls, ids: Any) -> "Reuse":
        distances = stack_distances(ids)
        return cls(distances, np.sort(np.unique(np.asarray(ids), return_counts=True)[1])[::-1])

    @property
    def accesses(self) -> int:
        return len(self.distances)

    @property
    def distinct(self) -> int:
        return len(self.uses)

    def hit_ratio(self, rows: int) -> float | None:
        """Share of accesses that an LRU cache of so many rows hits; None of an empty stream."""
        _check_rows(rows)
        if not self.accesses:
            return None
        return float(((self.distances != COLD) & (self.distances < rows)).mean())

    def pinned_ratio(self, rows: int) -> float | None:
        """Share of accesses to the `rows` most used rows: hits, if just these were kept in the cache all the time."""
        _check_rows(rows)
        return float(self.uses[:rows].sum() / self.accesses) if self.accesses else None

    def histogram(self) -> tuple[int, ...]:
        """Accesses by stack distance: 0, 1, 2..3, 4..7, 8..15 ... Cold ones are in none."""
        warm = self.distances[self.distances != COLD]
        bins = np.where(warm > 0, np.floor(np.log2(np.maximum(warm, 1))).astype(np.int64) + 1, 0)
        return tuple(np.bincount(bins).tolist())


def rows_of(capacity_bytes: float, features: int, element_bytes: int = 4) -> int:
    """How many rows of so many features a cache holds."""
    if features < 1:
        raise UsageError(f"a row has at least 1 feature; got {features}")
    return int(capacity_bytes // (element_bytes * features))


def _previous(stream: NDArray[Any]) -> NDArray[np.int64]:
    """[e], where the same id was last before, -1 where it was not."""
    order = np.argsort(stream, kind="stable")
    ordered = stream[order]
    previous = np.full(len(stream), -1, dtype=np.int64)
    same = ordered[1:] == ordered[:-1]
    previous[order[1:][same]] = order[:-1][same]
    return previous


def _earlier_and_not_larger(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """[e], for each place how many earlier places hold a value that is not larger.

    Places are kept in the order of their values and split by the bits of their number, the highest first. Of two places
    whose numbers first differ in a bit, the one with a 0 there is the earlier one; so a place with a 1 counts the
    places with a 0 that stand before it in its group. Every pair is counted at one bit.
    """
    count = len(values)
    result = np.zeros(count, dtype=np.int64)
    places = np.argsort(values, kind="stable")  # equal values: the earlier place first
    for bit in range(max(count - 1, 0).bit_length() - 1, -1, -1):
        is_one = (places >> bit) & 1
        zeros = np.cumsum(1 - is_one)
        group = places >> (bit + 1)
        begins = np.flatnonzero(np.diff(group, prepend=-1))
        lengths = np.diff(np.append(begins, count))
        zeros_before_group = np.repeat(zeros[begins] - (1 - is_one[begins]), lengths)
        ones = is_one == 1
        result[places[ones]] += (zeros - zeros_before_group)[ones]
        # a stable partition of every group: zeros from its begin, ones behind all of its zeros
        begin = np.repeat(begins, lengths)
        zeros_in_group = np.repeat(np.add.reduceat(1 - is_one, begins), lengths)
        zeros_so_far = zeros - zeros_before_group
        rank = np.where(ones, zeros_in_group + np.arange(count) - begin - zeros_so_far, zeros_so_far - 1)
        moved = np.empty_like(places)
        moved[begin + rank] = places
        places = moved
    return result


def _check_rows(rows: int) -> None:
    if rows < 0:
        raise UsageError(f"a cache holds 0 rows or more; got {rows}")
