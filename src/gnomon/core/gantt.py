"""Bars of a simulated schedule as a Chrome trace, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

`report.trace` writes what was recorded, whose threads follow from how spans nest. A simulator knows its tracks: stages,
lanes, units, each a thread with a name.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple


class Bar(NamedTuple):
    """One piece of work on one track, from start_s to end_s in simulated seconds."""

    track: str
    name: str
    start_s: float
    end_s: float


def chrome_trace(bars: Sequence[Bar], title: str) -> str:
    """The bars as JSON text, one thread per track, in the order in which tracks first appear.

    Raises ValueError for a bar that ends before it starts and for times that are not finite.
    """
    threads: dict[str, int] = {}
    events = []
    for bar in bars:
        if not bar.end_s >= bar.start_s:
            raise ValueError(f"bar {bar.name!r} of {bar.track!r} ends at {bar.end_s} s, before {bar.start_s} s")
        thread = threads.setdefault(bar.track, len(threads) + 1)
        start, length = (round(seconds * 1e6, 6) for seconds in (bar.start_s, bar.end_s - bar.start_s))
        events.append({"ph": "X", "name": bar.name, "ts": start, "dur": length, "pid": 1, "tid": thread})
    heads = [_head("process_name", 0, title), *(_head("thread_name", tid, name) for name, tid in threads.items())]
    order = [
        {"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": tid, "args": {"sort_index": tid}}
        for tid in threads.values()
    ]
    lines = ",\n".join(json.dumps(event, allow_nan=False) for event in [*heads, *order, *events])
    return f'{{"displayTimeUnit":"ns","traceEvents":[\n{lines}\n]}}'


def _head(kind: str, thread: int, name: str) -> dict[str, object]:
    return {"ph": "M", "name": kind, "pid": 1, "tid": thread, "args": {"name": name}}
