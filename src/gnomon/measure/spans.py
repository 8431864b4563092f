"""Who called whom, found from the times alone: spans of different tools carry no parents (Li et al. 2020, XSP).

The parent of a span is the smallest span of the same or a shallower level that contains it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from gnomon.measure.record import SPAN_LEVELS, Span


class Parents(NamedTuple):
    """parent: for each span the index of its parent, None for a root. ambiguous: spans whose parent is not unique.

    A span is ambiguous when it is as long as its parent at the same level (either could be the parent), or when
    another span of a level above contains it too without containing, or being contained in, the chosen parent.
    """

    parent: tuple[int | None, ...]
    ambiguous: tuple[int, ...]


def with_parents(spans: Sequence[Span]) -> tuple[tuple[Span, ...], int]:
    """The spans with their parents filled in, and how many of them are ambiguous."""
    tree = parents(spans)
    return tuple(replace(s, parent=p) for s, p in zip(spans, tree.parent, strict=True)), len(tree.ambiguous)


class _Open(NamedTuple):
    span: int
    depth: int
    start: int
    end: int


def parents(spans: Sequence[Span]) -> Parents:
    """The tree of spans from their intervals, whatever their order; their own `parent` is not looked at.

    Times count in whole nanoseconds. Of two equal spans the shallower level is the parent, at one level the earlier in
    the sequence, which is reported as ambiguous. Time O(n log n) plus the number of spans open at once for each.
    """
    entries = []
    for i, span in enumerate(spans):
        start, end = round(span.start_s * 1e9), round((span.start_s + span.wall_s) * 1e9)
        entries.append(_Open(i, SPAN_LEVELS.index(span.level), start, end))
    entries.sort(key=lambda e: (e.start, -e.end, e.depth, e.span))
    parent: list[int | None] = [None] * len(spans)
    ambiguous: set[int] = set()
    is_open: list[_Open] = []
    for entry in entries:
        is_open = [o for o in is_open if o.end >= entry.start and (o.end > o.start or o.start == entry.start)]
        around = [o for o in is_open if o.end >= entry.end and o.depth <= entry.depth]
        if around:
            # of equal candidates the innermost: deeper level first, then the later in sort order
            best = min(reversed(around), key=lambda o: (o.end - o.start, -o.depth))
            parent[entry.span] = best.span
            same = (best.start, best.end, best.depth) == (entry.start, entry.end, entry.depth)
            crossing = any(_cross(o, best) for o in around if o is not best)
            if same or crossing:
                ambiguous.add(entry.span)
        is_open.append(entry)
    return Parents(tuple(parent), tuple(sorted(ambiguous)))


def _cross(a: _Open, b: _Open) -> bool:
    """Neither contains the other."""
    a_in_b = b.start <= a.start and a.end <= b.end
    b_in_a = a.start <= b.start and b.end <= a.end
    return not (a_in_b or b_in_a)
