"""Recorded spans for OpenTelemetry: OTLP JSON for a file, OTLP/HTTP with protobuf for a collector.

Spans are not recorded through the SDK (a live span costs as much as the operators that it would time) but made here
from what was stored: start and end as they were, parents as they were, ids that are digests of the run and the place in
it, so that sending twice sends the same spans. What OpenTelemetry has a name for gets that name, all else begins with
`gnomon.`.
"""

import http.client
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gnomon._version import __version__
from gnomon.core.errors import NotRunnable, UsageError
from gnomon.core.units import format_seconds
from gnomon.measure.record import Measurement, Trace
from gnomon.report.files import write_text
from gnomon.report.nesting import nest
from gnomon.report.recording import Recording, recording

BATCH = 2000  # spans in one request: some 600 kB, far below a collector's usual limit of 4 MB
_RETRY = {429, 502, 503, 504}  # OTLP/HTTP: the only answers after which a client may send again
_TRIES = 3
_LONGEST_WAIT_S = 5.0
_INTERNAL = 1  # the span kind of work inside a process
_SCOPE = "gnomon"


@dataclass(frozen=True, slots=True)
class Sent:
    """What a collector took. rejected: spans that it refused, with its words in `messages`."""

    spans: int
    batches: int
    rejected: int
    messages: tuple[str, ...]


def write_otlp(path: Path, records: Sequence[Measurement | Trace], run_id: str) -> Path:
    """Write spans as one OTLP JSON document, which collectors read and `gnomon import trace` restores."""
    groups = [_json_group(*_prepared(recording(record), run_id, i)) for i, record in enumerate(records)]
    return write_text(path, json.dumps({"resourceSpans": groups}, separators=(",", ":"), allow_nan=False))


def send_otlp(
    records: Sequence[Measurement | Trace],
    run_id: str,
    endpoint: str,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
    sleep: Callable[[float], object] = time.sleep,
) -> Sent:
    """Send spans to an OTLP/HTTP endpoint, such as http://localhost:4318/v1/traces, in batches of 2000.

    timeout_s: for each request. A collector that is busy (429, 502, 503, 504) is asked three times, with `sleep` in
    between. Raises NotRunnable, with the reason, when the collector is not there, does not answer or refuses, and when
    the package opentelemetry-proto is missing; UsageError for an endpoint that is no HTTP URL.
    """
    if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname:
        raise UsageError(f"wanted an endpoint such as http://localhost:4318/v1/traces, got {endpoint!r}")
    try:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
    except ImportError as error:
        raise NotRunnable(f"sending OTLP needs opentelemetry-proto: pip install 'gnomon[otlp]' ({error})") from error
    spans, batches, rejected, messages = 0, 0, 0, []
    for i, record in enumerate(records):
        resource, prepared = _prepared(recording(record), run_id, i)
        for start in range(0, len(prepared), BATCH):
            batch = prepared[start : start + BATCH]
            answer = _post(endpoint, _protobuf(resource, batch), headers or {}, timeout_s, sleep, spans)
            try:
                partial = ExportTraceServiceResponse.FromString(answer).partial_success
            except DecodeError as error:
                raise NotRunnable(f"what answers at {endpoint} is no OTLP collector ({error})") from error
            rejected += partial.rejected_spans
            if partial.error_message:
                messages.append(partial.error_message)
            spans, batches = spans + len(batch), batches + 1
    return Sent(spans, batches, rejected, tuple(messages))


@dataclass(frozen=True, slots=True)
class _Out:
    """A span as OTLP has it; ids in bytes, times in nanoseconds since 1970."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    start: int
    end: int
    attributes: Mapping[str, Any]


def _prepared(source: Recording, run_id: str, position: int) -> tuple[dict[str, Any], list[_Out]]:
    """The resource and the spans of one record. Raises DamagedData when its parents form no tree."""
    nest(source.spans)
    trace_id = sha256(f"{run_id}/{position}".encode()).digest()[:16]
    ids = [sha256(trace_id + i.to_bytes(8, "big")).digest()[:8] for i in range(len(source.spans))]
    base = _unix_ns(source.started_at)
    out = []
    for i, span in enumerate(source.spans):
        attributes = {"gnomon.level": span.level, "gnomon.index": i}
        if span.cpu_s is not None:
            attributes["gnomon.cpu_time_ns"] = round(span.cpu_s * 1e9)
        attributes |= {f"gnomon.attribute.{key}": value for key, value in span.attributes.items()}
        start, end = base + round(span.start_s * 1e9), base + round((span.start_s + span.wall_s) * 1e9)
        parent = b"" if span.parent is None else ids[span.parent]
        out.append(_Out(trace_id, ids[i], parent, span.name, start, end, attributes))
    resource = {
        "service.name": "gnomon",
        "service.version": __version__,
        "gnomon.run": run_id,
        "gnomon.title": source.title,
        "gnomon.started_at_unix_nano": base,
    }
    environment = source.facts.get("environment", {})
    machine = environment.get("machine", {})
    known = {"host.cpu.model.name": machine.get("cpu"), "process.runtime.version": environment.get("python")}
    resource |= {key: value for key, value in known.items() if isinstance(value, str)}
    if environment:
        resource["process.runtime.name"] = "cpython"
    resource |= {f"gnomon.{key}": value for key, value in source.facts.items() if value not in (None, {}, [])}
    return resource, out


def _unix_ns(started_at: str | None) -> int:
    """Nanoseconds since 1970; 2020-01-01 where nobody knows, because OTLP has no time without a date."""
    try:
        moment = datetime.fromisoformat(started_at or "")
    except ValueError:
        moment = datetime(2020, 1, 1, tzinfo=UTC)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def _json_group(resource: Mapping[str, Any], spans: Sequence[_Out]) -> dict[str, Any]:
    listed = [
        {
            "traceId": span.trace_id.hex(),
            "spanId": span.span_id.hex(),
            "parentSpanId": span.parent_id.hex(),
            "name": span.name,
            "kind": _INTERNAL,
            "startTimeUnixNano": str(span.start),
            "endTimeUnixNano": str(span.end),
            "attributes": _json_pairs(span.attributes),
        }
        for span in spans
    ]
    scope = {"name": _SCOPE, "version": __version__}
    return {"resource": {"attributes": _json_pairs(resource)}, "scopeSpans": [{"scope": scope, "spans": listed}]}


def _json_pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _json_value(value)} for key, value in values.items()]


def _json_value(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else str(value)}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _json_pairs({str(key): item for key, item in value.items()})}}
    return {"arrayValue": {"values": [_json_value(item) for item in value]}}


def _protobuf(resource: Mapping[str, Any], spans: Sequence[_Out]) -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    _put_pairs(group.resource.attributes, resource)
    scope = group.scope_spans.add()
    scope.scope.name, scope.scope.version = _SCOPE, __version__
    for span in spans:
        one = scope.spans.add()
        one.trace_id, one.span_id, one.parent_span_id = span.trace_id, span.span_id, span.parent_id
        one.name, one.kind = span.name, _INTERNAL
        one.start_time_unix_nano, one.end_time_unix_nano = span.start, span.end
        _put_pairs(one.attributes, span.attributes)
    return bytes(request.SerializeToString())


def _put_pairs(target: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        pair = target.add()
        pair.key = str(key)
        _put(pair.value, value)


def _put(target: Any, value: Any) -> None:
    if value is None:
        target.Clear()
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, Mapping):
        target.kvlist_value.SetInParent()
        _put_pairs(target.kvlist_value.values, value)
    else:
        target.array_value.SetInParent()
        for item in value:
            _put(target.array_value.values.add(), item)


def _post(
    endpoint: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout_s: float,
    sleep: Callable[[float], object],
    already_sent: int,
) -> bytes:
    """The collector's answer to one batch."""
    told = f"the collector at {endpoint}"
    so_far = f"; {already_sent} spans were sent before" if already_sent else ""
    for tries in range(1, _TRIES + 1):
        request = urllib.request.Request(endpoint, data=body, method="POST")
        ours = {"Content-Type": "application/x-protobuf", "User-Agent": f"gnomon/{__version__}"}
        for name, value in {**ours, **headers}.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                words = error.read(300).decode("utf-8", "replace").strip()
                if error.code in _RETRY and tries < _TRIES:
                    sleep(_wait_s(error.headers.get("Retry-After"), tries))
                    continue
            advice = " Is it an OTLP/HTTP endpoint (port 4318, path /v1/traces)?" if error.code in (404, 405) else ""
            raise NotRunnable(f"{told} refused with {error.code} {error.reason}: {words}{advice}{so_far}") from error
        except TimeoutError as error:
            raise _late(told, timeout_s, so_far) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _late(told, timeout_s, so_far) from error
            raise NotRunnable(f"{told} cannot be reached: {error.reason}. Is it running?{so_far}") from error
        except (
            OSError,
            ValueError,
            http.client.HTTPException,
        ) as error:  # it hung up in the middle; a header that is none
            raise NotRunnable(f"{told} cannot be talked to: {error}{so_far}") from error
    raise AssertionError("the last try returns or raises")


def _late(told: str, timeout_s: float, so_far: str) -> NotRunnable:
    return NotRunnable(f"{told} did not answer within {format_seconds(timeout_s)}{so_far}", outcome="timed-out")


def _wait_s(retry_after: str | None, tries: int) -> float:
    asked = float(retry_after) if retry_after and retry_after.isdecimal() else 0.5 * 2**tries
    return min(asked, _LONGEST_WAIT_S)
