"""OTLP JSON: spans as OpenTelemetry's file exporters and collectors write them, and as `gnomon export` does.

Spans carry ids and parents. A level comes from the attribute `gnomon.level`, or from MLModelScope's `trace_level`; a
span without either is put at the application level, because how deep it stands says nothing about what it is.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from gnomon.measure.record import SPAN_LEVELS, Span, Trace
from gnomon.measure.traces.damage import Damage
from gnomon.measure.traces.nesting import Timed, refuse_circles, thread_parents
from gnomon.measure.traces.source import plain

_ATTRIBUTE = "gnomon.attribute."
# MLModelScope's levels (c3sr/tracer)
_THEIRS = {
    "APPLICATION_TRACE": "application",
    "MODEL_TRACE": "model",
    "FRAMEWORK_TRACE": "layer",
    "ML_LIBRARY_TRACE": "operator",
    "SYSTEM_LIBRARY_TRACE": "kernel",
    "HARDWARE_TRACE": "kernel",
}
_DEPTH: dict[str, int] = {level: depth for depth, level in enumerate(SPAN_LEVELS)}


def read_otlp(documents: list[Any], name: str, damage: Damage) -> Trace:
    """The spans of OTLP documents (`{"resourceSpans": [...]}`), in the order of their start.

    Spans that Gnomon wrote come back in their own order and with their own times. A parent outside of the file makes a
    root. Raises DamagedData for what `damage` does not let pass.
    """
    reader = _Reader(damage)
    for document in documents:
        if isinstance(document, Mapping):
            for resource, span in _spans_of(document):
                reader.add(resource, span)
    return reader.trace(name)


def _spans_of(document: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Any]]:
    for group in _list(document, "resourceSpans", "resource_spans"):
        resource = _attributes(_list(_mapping(group.get("resource")), "attributes"))
        for scope in _list(group, "scopeSpans", "scope_spans", "instrumentationLibrarySpans"):
            for span in scope.get("spans", ()) if isinstance(scope.get("spans"), list) else ():
                yield resource, span


class _Reader:
    def __init__(self, damage: Damage) -> None:
        self._damage = damage
        self._timed = Timed([], [], [], [])
        self._attributes: list[dict[str, Any]] = []
        self._cpu_s: list[float | None] = []
        self._index: list[int | None] = []
        self._origins: set[int] = set()
        self._above: list[tuple[str, str] | None] = []
        self._by_id: dict[tuple[str, str], int] = {}
        self._resource: dict[str, Any] = {}
        self._without_level = 0

    def add(self, resource: Mapping[str, Any], span: Any) -> None:
        """One span, checked. Its parent is looked up when all are there: order means nothing in OTLP."""
        if not isinstance(span, Mapping):
            self._damage.found("damaged-data", "entries that are no spans", repr(span)[:60])
            return
        told = span.get("name")
        name: str = told if isinstance(told, str) and told else "(no name)"
        trace_id, span_id = _id(span, "traceId", "trace_id"), _id(span, "spanId", "span_id")
        start, end = (_nanoseconds(span, *keys) for keys in _TIMES)
        if start is None or end is None:
            where = f"{name[:60]!r}: {_first(span, *_TIMES[0])!r} to {_first(span, *_TIMES[1])!r}"
            self._damage.found("bad-input", "times that are no nanoseconds", where)
            return
        if end < start:
            where = f"{name[:60]!r} lasts {end - start} ns"
            self._damage.found("clock-backwards", "spans that end before they begin", where)
            return
        if not span_id:
            self._damage.found("damaged-data", "spans without an id", f"{name[:60]!r}")
            return
        if (trace_id, span_id) in self._by_id:
            self._damage.found("damaged-data", "spans given twice", f"{span_id} ({name[:60]!r})", "first one kept")
            return
        self._by_id[trace_id, span_id] = len(self._timed.name)
        above = _id(span, "parentSpanId", "parent_span_id")
        self._above.append((trace_id, above) if above.strip("0") else None)
        attributes = _attributes(_list(span, "attributes"))
        level = _level(attributes)
        self._without_level += level is None
        self._timed.name.append(name)
        self._timed.depth.append(_DEPTH[level or "application"])
        self._timed.start.append(start)
        self._timed.end.append(end)
        cpu_ns, index = attributes.pop("gnomon.cpu_time_ns", None), attributes.pop("gnomon.index", None)
        self._cpu_s.append(cpu_ns * 1e-9 if type(cpu_ns) is int else None)
        self._index.append(index if type(index) is int else None)
        ours = {key.removeprefix(_ATTRIBUTE): value for key, value in attributes.items()}
        self._attributes.append(ours)
        origin = resource.get("gnomon.started_at_unix_nano")
        self._origins.add(origin if type(origin) is int else -1)
        self._resource = self._resource or dict(resource)

    def trace(self, name: str) -> Trace:
        """All that was added, with parents. Raises DamagedData."""
        timed, damage = self._timed, self._damage
        parent = [None if above is None else self._by_id.get(above) for above in self._above]
        outside = sum(above is not None and found is None for above, found in zip(self._above, parent, strict=True))
        if outside:
            damage.note(f"{outside} spans name a parent that is not in the file; they are roots")
        if self._without_level:
            damage.note(f"{self._without_level} spans carry no level (gnomon.level); they are at the application level")
        refuse_circles(timed.name, parent, damage)
        self._refuse_overlaps()
        count = len(timed.name)
        is_ours = None not in self._index and -1 not in self._origins and len(self._origins) == 1
        if is_ours:
            (origin,) = self._origins
            order = sorted(range(count), key=lambda i: self._index[i] or 0)
        else:
            origin = min(timed.start, default=0)
            order = sorted(range(count), key=lambda i: (timed.start[i], -timed.end[i], timed.depth[i], i))
        place = {i: new for new, i in enumerate(order)}
        spans = tuple(
            Span(
                timed.name[i],
                SPAN_LEVELS[timed.depth[i]],
                (timed.start[i] - origin) * 1e-9,
                (timed.end[i] - timed.start[i]) * 1e-9,
                self._cpu_s[i],
                None if (above := parent[i]) is None else place[above],
                self._attributes[i],
            )
            for i in order
        )
        metadata: dict[str, Any] = {"resource": self._resource}
        if 0 < origin < 2**62:
            metadata["started_at"] = f"{datetime.fromtimestamp(origin / 1e9, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        return Trace(name, "otlp", spans, metadata, damage.warnings())

    def _refuse_overlaps(self) -> None:
        """Spans that name one thread must nest there; spans that name none may well run side by side."""
        threads: dict[Any, list[int]] = defaultdict(list)
        for i, attributes in enumerate(self._attributes):
            thread = attributes.get("thread.id")
            if isinstance(thread, int | str) and self._timed.depth[i] != _DEPTH["kernel"]:
                threads[thread].append(i)
        ignored: list[int | None] = [None] * len(self._attributes)
        for thread in threads.values():
            thread_parents(self._timed, thread, ignored, self._damage)


_TIMES = (("startTimeUnixNano", "start_time_unix_nano"), ("endTimeUnixNano", "end_time_unix_nano"))


def _level(attributes: dict[str, Any]) -> str | None:
    told = attributes.get("gnomon.level")
    if told in _DEPTH:
        del attributes["gnomon.level"]
        return str(told)
    return _THEIRS.get(str(attributes.get("trace_level")).upper())


def _first(span: Mapping[str, Any], *keys: str) -> Any:
    return next((span[key] for key in keys if key in span), None)


def _nanoseconds(span: Mapping[str, Any], *keys: str) -> int | None:
    """OTLP JSON writes 64-bit numbers as text; some writers use numbers. 0 and nothing mean 'not set'."""
    value = _first(span, *keys)
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if type(value) is float and math.isfinite(value) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value < 2**63 else None


def _id(span: Mapping[str, Any], *keys: str) -> str:
    value = _first(span, *keys)
    return value.lower() if isinstance(value, str) else ""


def _list(value: Mapping[str, Any], *keys: str) -> list[Any]:
    found = _first(value, *keys)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _attributes(items: list[Any]) -> dict[str, Any]:
    return {str(item["key"]): _value(item.get("value")) for item in items if "key" in item}


def _value(value: Any) -> Any:
    """An AnyValue as a plain one. Whole numbers come as text, an empty AnyValue is nothing."""
    if not isinstance(value, Mapping) or not value:
        return None
    kind, inner = next(iter(value.items()))
    if kind == "intValue":
        try:
            return plain(int(inner))
        except (TypeError, ValueError):
            return plain(inner)
    if kind == "doubleValue" and isinstance(inner, int | float):
        return plain(float(inner))
    if kind == "arrayValue":
        return [_value(item) for item in _list(_mapping(inner), "values")]
    if kind == "kvlistValue":
        return _attributes(_list(_mapping(inner), "values"))
    return plain(inner)
