"""A measurement's spans as a Chrome trace, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format", complete events ('X') with `ts` and `dur` in microseconds, metadata events ('M').
"""

import json
from pathlib import Path
from typing import Any

from gnomon.core.records import to_json
from gnomon.measure.record import Measurement
from gnomon.report.files import write_text
from gnomon.report.nesting import nest

_PROCESS = 1


def chrome_trace(measurement: Measurement) -> dict[str, Any]:
    """The trace as a JSON object: one complete event per span, names of process and threads, the environment."""
    placed = nest(measurement.spans)
    events: list[dict[str, Any]] = [_named("process_name", 0, f"{measurement.task} ({measurement.variant})")]
    first = {place.track: measurement.spans[place.index] for place in reversed(placed)}
    for track, span in sorted(first.items()):
        events.append(_named("thread_name", track + 1, f"{'device' if span.level == 'kernel' else 'host'} {track + 1}"))
    for place in placed:
        span = measurement.spans[place.index]
        start, end = round(place.start_s * 1e9), round(place.end_s * 1e9)  # whole nanoseconds keep the nesting exact
        arguments = {"wall_s": span.wall_s, "cpu_s": span.cpu_s, **to_json(span.attributes)}
        events.append(
            {
                "ph": "X",
                "name": span.name,
                "cat": span.level,
                "ts": start / 1000,
                "dur": (end - start) / 1000,
                "pid": _PROCESS,
                "tid": place.track + 1,
                "args": arguments,
            }
        )
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "task": measurement.task,
            "task_digest": measurement.task_digest,
            "variant": measurement.variant,
            "environment": to_json(measurement.environment),
        },
    }


def write_trace(measurement: Measurement, path: Path) -> Path:
    """Write `chrome_trace(measurement)` to `path` in one step and return the path."""
    return write_text(path, json.dumps(chrome_trace(measurement), ensure_ascii=False, allow_nan=False))


def _named(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": _PROCESS, "tid": thread, "args": {"name": name}}
