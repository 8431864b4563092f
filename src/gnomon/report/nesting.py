"""Spans put into place: children inside their parents, so that a flame chart and Perfetto draw the same picture.

Clocks are read at slightly different moments, so a child can seem to end a few nanoseconds after its parent; such ends
are cut. Roots that overlap in time come on tracks of their own; so do kernels, which run behind the operator that
launched them and not inside it.
"""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from gnomon.core.errors import DamagedData
from gnomon.measure.record import Span


class Placed(NamedTuple):
    """A span (its index), with the stretch it is drawn over. depth: 0 for a root of its track."""

    span: int
    start_s: float
    end_s: float
    depth: int
    track: int


def nest(spans: Sequence[Span]) -> tuple[Placed, ...]:
    """Every span once, parents before children, siblings in order of time and never overlapping.

    A root takes the lowest track that is free when it starts. Time O(n log n).
    Raises DamagedData when a span's parent does not exist or when parents form a circle.
    """
    count = len(spans)
    starts = [span.start_s for span in spans]
    walls = [span.wall_s for span in spans]
    children: dict[int, list[int]] = defaultdict(list)
    roots: list[int] = []
    for index, span in enumerate(spans):
        parent = span.parent
        if parent is not None and not 0 <= parent < count:
            raise DamagedData(f"span {index} ({span.name}) names span {parent} as parent; there are {count}")
        is_behind = span.level == "kernel" and "library" not in span.attributes  # a CPU's libraries run inside
        if parent is None or is_behind:
            roots.append(index)
        else:
            children[parent].append(index)
    roots.sort(key=starts.__getitem__)  # sorting is stable: equal starts stay in the order of their indices

    placed: list[Placed] = []
    busy: list[tuple[float, int]] = []  # (end, track)
    free: list[int] = []
    for root in roots:
        start = starts[root]
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        track = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (start + walls[root], track))
        pending = [Placed(root, start, start + walls[root], 0, track)]
        while pending:
            above = pending.pop()
            placed.append(above)
            below = children.get(above.span)
            if below is None:
                continue
            free_from, end_of_above, depth = above.start_s, above.end_s, above.depth + 1
            below.sort(key=starts.__getitem__)
            inside = []
            for index in below:
                start = min(max(starts[index], free_from), end_of_above)
                free_from = max(start, min(starts[index] + walls[index], end_of_above))
                inside.append(Placed(index, start, free_from, depth, track))
            inside.reverse()
            pending += inside
    if len(placed) < count:
        raise DamagedData(f"{count - len(placed)} of {count} spans are their own ancestors; trace again")
    return tuple(placed)
