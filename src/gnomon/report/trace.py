"""Recorded spans as a Chrome trace, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format", complete events ('X') with `ts` and `dur` in microseconds, metadata events ('M'). Under
`args.gnomon` each event keeps what the format has no place for (the span's number, its parent, its CPU time, its times
where they were cut), so that `gnomon import trace` gives back the same spans.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnomon.measure.record import Measurement, Trace
from gnomon.report.files import write_text
from gnomon.report.nesting import nest
from gnomon.report.recording import Recording, recording

VERSION = 1  # of what stands under args.gnomon


def chrome_trace(*records: Measurement | Trace) -> str:
    """The trace as JSON text: one process per record, one complete event per span, what is known of each record.

    Raises DamagedData when parents of spans do not exist or form a circle, ValueError for numbers that are not finite.
    """
    recordings = [recording(record) for record in records]
    events = ",\n".join(line for process, each in enumerate(recordings, start=1) for line in _events(process, each))
    about: dict[str, Any] = {"writer": "gnomon", "version": VERSION}
    about |= recordings[0].facts if len(recordings) == 1 else {"records": [each.facts for each in recordings]}
    return f'{{"displayTimeUnit":"ms","otherData":{_encode(about)},"traceEvents":[\n{events}\n]}}'


def write_trace(path: Path, *records: Measurement | Trace) -> Path:
    """Write `chrome_trace(*records)` to `path` in one step and return the path."""
    return write_text(path, chrome_trace(*records))


def _events(process: int, recording: Recording) -> Iterator[str]:
    """Events as text. Text and not dicts that the JSON encoder walks: a third of the time for 100,000 spans."""
    spans, placed = recording.spans, nest(recording.spans)
    yield _named("process_name", process, 0, recording.title)
    first = {place.track: spans[place.span].level for place in reversed(placed)}
    for track, level in sorted(first.items()):
        yield _named("thread_name", process, track + 1, f"{'device' if level == 'kernel' else 'host'} {track + 1}")
    quoted = functools.cache(_encode)  # names repeat
    for index, start_s, end_s, _, track in placed:
        span = spans[index]
        start, end = round(start_s * 1e9), round(end_s * 1e9)  # whole nanoseconds keep the nesting exact
        length = end - start
        attributes = _encode(span.attributes)[1:-1] + "," if span.attributes else ""
        ours = f'"span":{index},"parent":{"null" if span.parent is None else span.parent}'
        if span.cpu_s is not None:
            ours += f',"cpu_ns":{round(span.cpu_s * 1e9)}'
        recorded, recorded_end = round(span.start_s * 1e9), round((span.start_s + span.wall_s) * 1e9)
        if (recorded, recorded_end) != (start, end):  # it was cut to nest
            ours += f',"start_ns":{recorded},"wall_ns":{recorded_end - recorded}'
        yield (  # microseconds written from whole nanoseconds: twice as fast as printing floats, and exact
            f'{{"ph":"X","name":{quoted(span.name)},"cat":"{span.level}","ts":{_microseconds(start)},'
            f'"dur":{length // 1000}.{length % 1000:03},"pid":{process},"tid":{track + 1},'
            f'"args":{{{attributes}"gnomon":{{{ours}}}}}}}'
        )


def _microseconds(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03}" if ns >= 0 else f"-{-ns // 1000}.{-ns % 1000:03}"


_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _named(kind: str, process: int, thread: int, name: str) -> str:
    return _encode({"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}})
