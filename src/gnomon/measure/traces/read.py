"""A trace file of any known format as a `Trace`."""

import json
from pathlib import Path
from typing import Any

from gnomon.core.errors import DamagedData
from gnomon.measure.record import Trace
from gnomon.measure.traces import source
from gnomon.measure.traces.chrome import NotExact, read_chrome
from gnomon.measure.traces.damage import Damage
from gnomon.measure.traces.otlp import read_otlp
from gnomon.measure.traces.source import no_trace, read_text

_OTLP_KEYS = ("resourceSpans", "resource_spans")


def read_trace(path: Path, is_lenient: bool = False) -> Trace:
    """Spans of a Chrome or Perfetto JSON trace, or of an OTLP JSON file (one document, or one per line), also gzipped.

    The first span begins at 0 s. is_lenient: go on where a trace is cut off or contradicts itself, and say in the
    trace's warnings what was left out or kept; by default that is refused.

    Raises UsageError when the file cannot be read, DamagedData when it is no trace or damaged; the error's outcome
    tells which: truncated-trace, overlapping-spans, clock-backwards, bad-input, unknown-version, damaged-data.
    """
    damage = Damage(str(path), is_lenient)
    text = read_text(path, damage)
    name = path.name.removesuffix(".gz").removesuffix(".json").removesuffix(".jsonl") or path.name
    try:
        trace = _read(text, name, damage, exact=False)
    except NotExact:
        damage = Damage(str(path), is_lenient)
        trace = _read(text, name, damage, exact=True)
    if not trace.spans:
        told = "".join(f"; {warning}" for warning in trace.warnings)
        raise DamagedData(f"{path} holds no spans to import{told}", outcome=damage.first_outcome or "bad-input")
    return trace


def _read(text: str, name: str, damage: Damage, exact: bool) -> Trace:
    stripped = text.lstrip()
    if stripped[:1] not in ("{", "["):
        raise no_trace(damage.name, f"it begins with {stripped[:20]!r}" if stripped else "it is empty")
    try:
        document = source.loads(text, exact)
    except (ValueError, RecursionError) as error:
        return _read_cut(text, name, damage, exact, error)
    return _of_document(document, name, damage)


def _of_document(document: Any, name: str, damage: Damage) -> Trace:
    if isinstance(document, list):
        return read_chrome(document, {}, name, damage)
    if isinstance(document.get("traceEvents"), list):
        return read_chrome(document["traceEvents"], document, name, damage)
    if any(key in document for key in _OTLP_KEYS):
        return read_otlp([document], name, damage)
    raise no_trace(damage.name, f"its keys are {', '.join(map(repr, list(document)[:8])) or 'none'}")


def _read_cut(text: str, name: str, damage: Damage, exact: bool, error: Exception) -> Trace:
    """What is left of a text that is no whole JSON document."""
    if any(f'"{key}"' in text for key in _OTLP_KEYS):
        return read_otlp(_documents(text, damage), name, damage)
    opens = next(source.arrays(text, "traceEvents"), None)
    if opens is None and text.lstrip().startswith("["):
        opens = text.index("[")
    if opens is None:
        raise no_trace(damage.name, f"it is no JSON ({error})") from error
    events, end, is_broken = source.salvaged(text, opens, exact)
    if is_broken:
        source.cut(damage, f"{len(events)} complete events", text, end)
    elif text[:opens].strip() or text[end:].strip("] \t\r\n"):  # what follows the events is broken, or is missing
        damage.found("truncated-trace", "an end in the middle", f"after all {len(events)} events ({error})", "used")
    about = _before(text, opens, exact)
    return read_chrome(events, about, name, damage)


def _before(text: str, opens: int, exact: bool) -> dict[str, Any]:
    """What stands in the document before its events."""
    head = text[:opens].rstrip().removesuffix(":").rstrip().removesuffix('"traceEvents"').rstrip().removesuffix(",")
    try:
        return dict(source.loads(head + "}", exact))
    except (ValueError, RecursionError):
        return {}


def _documents(text: str, damage: Damage) -> list[Any]:
    """OTLP documents, one a line as collectors write them; of a broken one the spans that are whole."""
    documents: list[Any] = []
    lines = [line for line in text.splitlines() if line.strip()]
    whole = True
    for line in lines:
        try:
            documents.append(json.loads(line))
        except (ValueError, RecursionError):
            whole = False
            break
    if whole:
        return documents
    spans: list[Any] = []
    is_told = False
    for opens in source.arrays(text, "spans"):
        items, end, is_broken = source.salvaged(text, opens)
        spans += items
        if is_broken or end == len(text):
            source.cut(damage, f"{len(spans)} complete spans", text, end)
            is_told = True
    if not is_told:
        damage.found("truncated-trace", "an end in the middle", f"after {len(spans)} complete spans", "used")
    return [{"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}]
