"""Parents found from times, thread by thread: a million spans in one sweep.

`measure.spans` answers the same question for the few thousand spans of one call, with the ambiguities told. Here
threads are known, so spans that nest do so on a stack, and what does not nest is damage: on one thread a call ends
before the call around it does.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gnomon.core.errors import DamagedData
from gnomon.measure.traces.damage import Damage

TOLERANCE_NS = 1000  # traces with whole microseconds round starts and ends by that much
_LANES = 64


class Timed(NamedTuple):
    """Spans as columns, times in nanoseconds. depth: place of the span's level, shallow to deep."""

    name: list[str]
    depth: list[int]
    start: list[int]
    end: list[int]


class _Lane:
    """Open spans of a thread that hold each other; `by_depth`: positions in `open` of the spans of each level."""

    def __init__(self) -> None:
        self.open: list[int] = []
        self.by_depth: list[list[int]] = [[] for _ in range(5)]

    def push(self, span: int, depth: int) -> None:
        self.by_depth[depth].append(len(self.open))
        self.open.append(span)

    def pop(self, depths: Sequence[int]) -> None:
        self.by_depth[depths[self.open.pop()]].pop()

    def innermost(self, depth: int) -> int | None:
        """The innermost open span whose level is not deeper than `depth`."""
        position = max((stack[-1] for stack in self.by_depth[: depth + 1] if stack), default=None)
        return None if position is None else self.open[position]


def thread_parents(spans: Timed, thread: list[int], parent: list[int | None], damage: Damage) -> None:
    """Fill in `parent` for the spans of one thread: the innermost span around each whose level is not deeper.

    Of equal intervals the shallower is the parent, at one level the earlier. Spans that overlap are damage
    ('overlapping-spans'); a lenient reader keeps them side by side, with the parent that holds both. Sorts `thread`.
    """
    start, end, depth = spans.start, spans.end, spans.depth
    thread.sort(key=lambda i: (start[i], -end[i], depth[i], i))
    lanes = [_Lane()]
    for i in thread:
        begins, ends = start[i], end[i]
        home: _Lane | None = None
        shortest: int | None = None  # of the spans around, one in each lane
        for lane in lanes:
            while lane.open:
                top = end[lane.open[-1]]
                is_over = top <= begins < ends or top < begins
                if is_over or (top < ends and top - begins <= min(TOLERANCE_NS, ends - top)):
                    lane.pop(depth)
                else:
                    break
            if not lane.open:
                home = home or lane
            elif ends - top <= TOLERANCE_NS:
                length = top - start[lane.open[-1]]
                if shortest is None or length < shortest:
                    home, shortest = lane, length
        if home is not None:
            parent[i] = home.innermost(depth[i])
        if len(lanes) > 1 or home is None:
            if parent[i] is None:
                parent[i] = _around(lanes, spans, i)
            other = next(
                (lane.open[-1] for lane in lanes if lane.open and ends - end[lane.open[-1]] > TOLERANCE_NS), None
            )
            if other is not None:
                where = f"{_shown(spans, i)} and {_shown(spans, other)}"
                damage.found("overlapping-spans", "spans of one thread that overlap", where, "kept side by side")
        if home is None:
            if len(lanes) == _LANES:
                text = f"over {_LANES} spans of one thread overlap at {begins} ns; this is no thread's trace"
                raise DamagedData(f"{damage.name}: {text}", outcome="overlapping-spans")
            home = _Lane()
            lanes.append(home)
        home.push(i, depth[i])


def _around(lanes: list[_Lane], spans: Timed, i: int) -> int | None:
    """The shortest open span of any lane that holds span i."""
    around = [
        o for lane in lanes for o in lane.open if spans.end[o] >= spans.end[i] and spans.depth[o] <= spans.depth[i]
    ]
    return min(around, key=lambda o: spans.end[o] - spans.start[o], default=None)


def adopt(spans: Timed, orphans: list[int], hosts: list[int], parent: list[int | None]) -> None:
    """Give the roots of other threads (`orphans`) the innermost of `hosts` around them of a shallower level.

    hosts: spans of one thread, their parents known. The backward pass runs in a thread of its own while the thread
    that asked for it waits inside its module or step.
    """
    start, end, depth = spans.start, spans.end, spans.depth
    order = sorted([(start[i], -end[i], 0, i) for i in hosts] + [(start[i], -end[i], 1, i) for i in orphans])
    latest: int | None = None
    for _, _, is_orphan, i in order:
        if not is_orphan:
            latest = i
            continue
        while latest is not None and end[latest] <= start[i]:
            latest = parent[latest]  # ended: no later orphan can be inside it
        host = latest
        while host is not None and (end[host] < end[i] or depth[host] >= depth[i]):
            host = parent[host]
        parent[i] = host


def refuse_circles(names: Sequence[str], parent: list[int | None], damage: Damage) -> None:
    """Parents that form a circle are damage; a lenient reader makes one span of each circle a root."""
    state = bytearray(len(parent))  # 1: on the way up from the current span, 2: known to end at a root
    for span in range(len(parent)):
        way, at = [], span
        while not state[at]:
            state[at] = 1
            way.append(at)
            above = parent[at]
            if above is None:
                break
            if state[above] == 1:
                where = f"{names[above]!r} is its own ancestor"
                damage.found("damaged-data", "parents that form a circle", where, "cut open")
                parent[at] = None
                break
            at = above
        for each in way:
            state[each] = 2


def _shown(spans: Timed, i: int) -> str:
    return f"{spans.name[i][:60]!r} ({spans.start[i]} to {spans.end[i]} ns)"
