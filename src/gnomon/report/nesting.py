"""Spans put into place: children inside their parents, so that a flame chart and Perfetto draw the same picture.

Clocks are read at slightly different moments, so a child can seem to end a few nanoseconds after its parent; such ends
are cut. Roots that overlap in time come on tracks of their own; so do kernels, which run behind the operator that
launched them and not inside it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.core.errors import DamagedData
from gnomon.measure.record import Span


@dataclass(frozen=True, slots=True)
class Placed:
    """A span by its index, with the stretch it is drawn over. depth: 0 for a root of its track."""

    index: int
    start_s: float
    end_s: float
    depth: int
    track: int


def nest(spans: Sequence[Span]) -> tuple[Placed, ...]:
    """Every span once, parents before children, siblings in order of time and never overlapping.

    Raises DamagedData when a span's parent does not exist or when parents form a circle.
    """
    children: dict[int | None, list[int]] = defaultdict(list)
    for index, span in enumerate(spans):
        if span.parent is not None and not 0 <= span.parent < len(spans):
            raise DamagedData(f"span {index} ({span.name}) names span {span.parent} as parent; there are {len(spans)}")
        children[None if span.level == "kernel" else span.parent].append(index)
    for indices in children.values():
        indices.sort(key=lambda i: (spans[i].start_s, i))

    placed: list[Placed] = []
    track_ends: list[float] = []
    for root in children[None]:
        start = spans[root].start_s
        track = next((t for t, end in enumerate(track_ends) if end <= start), len(track_ends))
        track_ends[track:] = [start + spans[root].wall_s, *track_ends[track + 1 :]]
        pending = [Placed(root, start, track_ends[track], 0, track)]
        while pending:
            above = pending.pop()
            placed.append(above)
            free_from = above.start_s
            inside = []
            for index in children.get(above.index, ()):
                span = spans[index]
                start = min(max(span.start_s, free_from), above.end_s)
                free_from = max(start, min(span.start_s + span.wall_s, above.end_s))
                inside.append(Placed(index, start, free_from, above.depth + 1, track))
            pending += reversed(inside)
    if len(placed) < len(spans):
        raise DamagedData(f"{len(spans) - len(placed)} of {len(spans)} spans are their own ancestors; trace again")
    return tuple(placed)
