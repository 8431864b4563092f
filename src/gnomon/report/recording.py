"""What the exports of spans share: one stretch of recorded time, whether Gnomon measured it or imported it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.core.records import to_json
from gnomon.measure.record import Measurement, Span, Trace


@dataclass(frozen=True, slots=True)
class Recording:
    """Spans with what is known of them. started_at: ISO 8601, None when the trace does not say.

    facts: task, digest, variant and environment of a measurement, metadata and warnings of a trace; plain JSON.
    """

    title: str
    spans: Sequence[Span]
    started_at: str | None
    facts: Mapping[str, Any]


def recording(record: Measurement | Trace) -> Recording:
    """The spans of a stored record."""
    if isinstance(record, Trace):
        facts = {"trace": record.name, "origin": record.origin, "metadata": to_json(record.metadata)}
        started_at = record.metadata.get("started_at")
        known = started_at if isinstance(started_at, str) else None
        return Recording(record.name, record.spans, known, {**facts, "warnings": list(record.warnings)})
    facts = {"task": record.task, "task_digest": record.task_digest, "variant": record.variant}
    facts |= {"mode": record.mode, "batch": record.batch, "environment": to_json(record.environment)}
    title = f"{record.task} ({record.variant})"
    return Recording(title, record.spans, record.environment.started_at, facts)
