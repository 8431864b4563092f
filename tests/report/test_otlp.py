import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from gnomon.core.errors import DamagedData, NotRunnable, UsageError
from gnomon.measure.record import Span, Trace
from gnomon.measure.traces.read import read_trace
from gnomon.report.otlp import BATCH, send_otlp, write_otlp
from tests.measure.traces.test_chrome import in_nanoseconds, nested_spans


class Collector(BaseHTTPRequestHandler):
    """Keeps every request, decoded; answers with what the test prepared, or that all is well."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), ExportTraceServiceRequest.FromString(body)))
        code, headers, content = self.server.answers.pop(0) if self.server.answers else (200, {}, b"")
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Nothing on the test's standard error."""


@pytest.fixture
def collector():
    server = HTTPServer(("127.0.0.1", 0), Collector)
    server.requests, server.answers = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def received(collector):
    return [span for _, _, r in collector.requests for g in r.resource_spans for s in g.scope_spans for span in s.spans]


TREE = (
    Span("step", "model", 0.0, 1e-3, 9e-4, None, {}),
    Span("fc", "layer", 1e-4, 5e-4, None, 0, {"type": "Linear", "shapes": [[8, 128], []], "x": None, "y": {"k": 0.5}}),
    Span("gemm", "kernel", 9e-4, 7e-4, None, 1, {"stream": 7, "async": True}),
)


def test_a_collector_receives_the_tree_with_its_times_and_attributes(collector, examination):
    sent = send_otlp([examination.measurement, Trace("t", "x", TREE)], "run-1", collector.url, {"X-Key": "secret"})
    spans = examination.measurement.spans
    assert (sent.spans, sent.batches, sent.rejected) == (len(spans) + 3, 2, 0)
    path, headers, request = collector.requests[0]
    assert (path, headers["Content-Type"], headers["X-Key"]) == ("/v1/traces", "application/x-protobuf", "secret")
    resource = {pair.key: pair.value for pair in request.resource_spans[0].resource.attributes}
    assert resource["service.name"].string_value == "gnomon"
    assert resource["gnomon.task"].string_value == "sentence-embedding"
    got = received(collector)
    first = {span.span_id: i for i, span in enumerate(got[: len(spans)])}
    assert len(first) == len(spans)
    base = resource["gnomon.started_at_unix_nano"].int_value
    for mine, theirs in zip(spans, got, strict=False):
        assert first.get(theirs.parent_span_id) == mine.parent
        assert theirs.name == mine.name
        assert theirs.start_time_unix_nano - base == round(mine.start_s * 1e9)
        assert theirs.end_time_unix_nano - base == round((mine.start_s + mine.wall_s) * 1e9)
        assert {a.key: a.value.string_value for a in theirs.attributes}["gnomon.level"] == mine.level
    assert len({span.trace_id for span in got}) == 2  # one trace for each record
    told = {a.key: a.value for a in got[-2].attributes}
    shapes = told["gnomon.attribute.shapes"].array_value.values
    assert [[v.int_value for v in shape.array_value.values] for shape in shapes] == [[8, 128], []]
    assert told["gnomon.attribute.y"].kvlist_value.values[0].value.double_value == 0.5
    assert told["gnomon.attribute.x"].WhichOneof("value") is None
    assert {a.key: a.value for a in got[-3].attributes}["gnomon.cpu_time_ns"].int_value == 900_000


def test_sending_twice_sends_the_same_spans(collector):
    for run in ("run-1", "run-1", "run-2"):
        send_otlp([Trace("t", "x", TREE)], run, collector.url)
    ids = [(span.trace_id, span.span_id) for span in received(collector)]
    assert ids[:3] == ids[3:6]
    assert not set(ids[:3]) & set(ids[6:])


def test_many_spans_come_in_batches(collector):
    spans = tuple(Span("s", "operator", i * 1e-6, 1e-7, None, None, {}) for i in range(2 * BATCH + 1))
    sent = send_otlp([Trace("t", "x", spans)], "run", collector.url)
    assert (sent.spans, sent.batches) == (2 * BATCH + 1, 3)
    sizes = [len(r.resource_spans[0].scope_spans[0].spans) for _, _, r in collector.requests]
    assert sizes == [BATCH, BATCH, 1]
    assert len({span.span_id for span in received(collector)}) == 2 * BATCH + 1


def test_partial_success_is_reported(collector):
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans, answer.partial_success.error_message = 2, "too old"
    collector.answers = [(200, {}, answer.SerializeToString())]
    sent = send_otlp([Trace("t", "x", TREE)], "run", collector.url)
    assert (sent.spans, sent.rejected, sent.messages) == (3, 2, ("too old",))


def test_a_busy_collector_is_asked_again_and_then_told_of(collector):
    waits = []
    collector.answers = [(503, {"Retry-After": "2"}, b""), (429, {}, b"")]
    assert send_otlp([Trace("t", "x", TREE)], "run", collector.url, sleep=waits.append).spans == 3
    assert waits == [2.0, 2.0]
    collector.answers = [(503, {"Retry-After": "999"}, b"overloaded")] * 3
    with pytest.raises(NotRunnable, match="refused with 503 Service Unavailable: overloaded"):
        send_otlp([Trace("t", "x", TREE)], "run", collector.url, sleep=waits.append)
    assert waits[2:] == [5.0, 5.0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, b"not here"), "refused with 404 Not Found: not here Is it an OTLP/HTTP endpoint"),
        ((401, {}, b""), "refused with 401 Unauthorized"),
        ((200, {}, b"\xff<html>"), "is no OTLP collector"),
    ],
)
def test_a_collector_that_refuses_is_told_and_not_asked_again(collector, answer, message):
    collector.answers = [answer]
    with pytest.raises(NotRunnable, match=message):
        send_otlp([Trace("t", "x", TREE)], "run", collector.url)
    assert len(collector.requests) == 1


def test_a_collector_that_is_not_there_or_does_not_answer_is_told():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        port = silent.getsockname()[1]
        with pytest.raises(NotRunnable, match="did not answer within 100 ms") as late:
            send_otlp([Trace("t", "x", TREE)], "run", f"http://127.0.0.1:{port}/v1/traces", timeout_s=0.1)
        assert late.value.outcome == "timed-out"
    with pytest.raises(NotRunnable, match=r"cannot be reached: .*refused\. Is it running\?"):
        send_otlp([Trace("t", "x", TREE)], "run", f"http://127.0.0.1:{port}/v1/traces")
    for wrong in ("localhost:4318", "ftp://host/x", "http://"):
        with pytest.raises(UsageError, match="wanted an endpoint such as"):
            send_otlp([Trace("t", "x", TREE)], "run", wrong)


@given(spans=nested_spans())
def test_spans_come_back_equal_from_a_file(tmp_path_factory, spans):
    path = write_otlp(tmp_path_factory.mktemp("t") / "mine.json", [Trace("mine", "x", spans)], "run")
    back = read_trace(path)
    named = tuple(span if span.name else Span("(no name)", *_rest(span)) for span in spans)
    assert in_nanoseconds(back.spans) == in_nanoseconds(named)
    assert back.warnings == ()


def _rest(span):
    return span.level, span.start_s, span.wall_s, span.cpu_s, span.parent, span.attributes


def test_the_file_is_what_the_format_asks_for(tmp_path):
    path = write_otlp(tmp_path / "t.json", [Trace("t", "x", TREE)], "run")
    (group,) = json.loads(path.read_text())["resourceSpans"]
    step, layer, _ = group["scopeSpans"][0]["spans"]
    assert (len(step["traceId"]), len(step["spanId"]), step["parentSpanId"]) == (32, 16, "")
    assert layer["parentSpanId"] == step["spanId"]
    assert int(step["endTimeUnixNano"]) - int(step["startTimeUnixNano"]) == 1_000_000


def test_parents_that_are_no_tree_are_damage(tmp_path):
    with pytest.raises(DamagedData, match="own ancestors"):
        write_otlp(tmp_path / "t.json", [Trace("t", "x", (Span("a", "layer", 0.0, 1.0, None, 0),))], "run")
