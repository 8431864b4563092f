"""The order in which T queries that are processed together meet their keys, and how often a key is read for it.

Out of order (DOTA's idea; the queues are our reconstruction): every needed key stands in one of 2^T - 1 queues, by the
set of queries that want it. A step takes the largest set that is still free, then the largest that fits beside it, so
that no query gets two keys in one step. In order: each query walks its own keys from first to last, and a key is shared
only by those that happen to be there in the same step. Row by row: one query at a time.

Which keys stand in a queue changes nothing, so all is decided on their numbers, many equal steps at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnomon.kernels.detected_attention.accelerator.design import Order


class Issue(NamedTuple):
    """A key that is read in a step and the queries (bits of a set) that use it."""

    key: int
    queries: int


Step = tuple[Issue, ...]


class Totals(NamedTuple):
    """steps: in which every query uses one key at most. loads: keys read. pairs: (query, key) pairs issued."""

    steps: int
    loads: int
    pairs: int


class _Take(NamedTuple):
    queue: int  # the set of queries that wants the key
    queries: int  # those that use it now; the others wait for it in their own queue


def totals(mask: NDArray[np.bool_], order: Order, splits: bool = True) -> Totals:
    """Steps, reads and pairs of a group. mask: [T, n], which query wants which key."""
    pairs = int(mask.sum())
    if order == "row-by-row" or len(mask) == 1:
        return Totals(pairs, pairs, pairs)
    if order == "in-order":
        nth = _nth_key(mask)
        loads = int((np.diff(np.sort(nth, axis=0), axis=0) > 0).sum()) + nth.shape[1]
        return Totals(nth.shape[1], loads - int((nth == mask.shape[1]).any(0).sum()), pairs)
    steps = loads = 0
    for takes, repeats in _out_of_order(_queue_sizes(mask), splits):
        steps += repeats
        loads += repeats * len(takes)
    return Totals(steps, loads, pairs)


def schedule(mask: NDArray[np.bool_], order: Order, splits: bool = True) -> list[Step]:
    """The steps themselves, as `totals` counts them. mask: [T, n]. Queries are bits: 1, 2, 4 ..."""
    if order == "row-by-row" or len(mask) == 1:
        return [(Issue(int(key), 1 << row),) for row in range(len(mask)) for key in np.flatnonzero(mask[row])]
    if order == "in-order":
        return [_shared(column, mask.shape[1]) for column in _nth_key(mask).T]
    queues: dict[int, list[int]] = {queue: [] for queue in range(1, 1 << len(mask))}
    for key, queue in enumerate(_wanted_by(mask)):
        if queue:
            queues[int(queue)].append(key)
    steps = []
    for takes, repeats in _out_of_order(_queue_sizes(mask), splits):
        for _ in range(repeats):
            popped = [(queues[take.queue].pop(), take) for take in takes]
            for key, take in popped:
                if take.queue != take.queries:
                    queues[take.queue & ~take.queries].append(key)
            steps.append(tuple(Issue(key, take.queries) for key, take in popped))
    return steps


def _out_of_order(sizes: Sequence[int], splits: bool) -> Iterator[tuple[list[_Take], int]]:
    """What a step takes from the queues (sizes by set of queries), and how many such steps follow one another.

    With splits, no query that has most keys left ever waits, so the steps are as many as the longest row has keys.
    """
    left = list(sizes)
    by_size = sorted(range(1, len(left)), key=lambda queue: (-queue.bit_count(), queue))
    queries = [1 << i for i in range((len(left) - 1).bit_length())]
    while any(left):
        waiting = [queue for queue in by_size if left[queue]]
        remaining = {query: sum(left[queue] for queue in waiting if queue & query) for query in queries}
        longest = max(remaining.values())
        takes, free = [], len(left) - 1
        for queue in waiting:  # whole sets first: a key that serves all who want it is read once
            if queue & free == queue:
                takes.append(_Take(queue, queue))
                free &= ~queue
        if splits:
            for queue in sorted(waiting, key=lambda queue: -(queue & free).bit_count()):
                if any(queue & free & query and remaining[query] == longest for query in queries):
                    takes.append(_Take(queue, queue & free))
                    free &= ~queue
        change = dict.fromkeys((take.queue for take in takes), -1)
        for take in takes:
            if rest := take.queue & ~take.queries:
                change[rest] = change.get(rest, 0) + 1
        slack = [longest - remaining[query] for query in queries if query & free and remaining[query]]
        repeats = _alike(left, change, slack if splits else [])
        for queue, by in change.items():
            left[queue] += repeats * by
        yield takes, repeats


def _alike(left: Sequence[int], change: Mapping[int, int], slack: Sequence[int]) -> int:
    """How often the same step is taken: until a queue runs empty or is empty no more, or who waited may wait no longer.

    change: of each queue, by one step. slack: keys that those who wait have less than the longest.
    """
    if any(by > 0 and not left[queue] for queue, by in change.items()):
        return 1
    return min([left[queue] for queue, by in change.items() if by < 0] + list(slack))


def _wanted_by(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[n]: of every key, the set of queries that want it."""
    return (1 << np.arange(len(mask))) @ mask.astype(np.int64)


def _queue_sizes(mask: NDArray[np.bool_]) -> list[int]:
    return [0, *np.bincount(_wanted_by(mask), minlength=1 << len(mask))[1:].tolist()]


def _nth_key(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[T, longest row]: the keys of every query from first to last; n where a query has no more."""
    rows = [np.flatnonzero(row) for row in mask]
    found = np.full((len(rows), max(map(len, rows), default=0)), mask.shape[1])
    for place, keys in zip(found, rows, strict=True):
        place[: len(keys)] = keys
    return found


def _shared(column: NDArray[np.int64], none: int) -> Step:
    wanted: dict[int, int] = {}
    for row, key in enumerate(column):
        if key != none:
            wanted[int(key)] = wanted.get(int(key), 0) | 1 << row
    return tuple(Issue(key, queries) for key, queries in wanted.items())
