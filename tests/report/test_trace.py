import dataclasses
import json

import pytest

from gnomon.core.errors import DamagedData
from gnomon.measure.record import Span, Trace
from gnomon.report.trace import chrome_trace, write_trace


def parsed(*records):
    return json.loads(chrome_trace(*records))


def complete(document):
    return [event for event in document["traceEvents"] if event["ph"] == "X"]


def test_there_is_one_complete_event_per_span_in_microseconds(examination):
    spans = examination.measurement.spans
    events = complete(parsed(examination.measurement))
    assert len(events) == len(spans)
    longest = max(events, key=lambda event: event["dur"])
    assert abs(longest["dur"] - 1e6 * max(span.wall_s for span in spans)) < 0.001


def test_events_of_a_thread_nest_exactly_as_perfetto_wants(examination):
    """Of two events on a thread one holds the other or they are apart, to the nanosecond."""
    stack = []
    for event in sorted(complete(parsed(examination.measurement)), key=lambda e: (e["tid"], e["ts"], -e["dur"])):
        start, end = round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)
        while stack and (stack[-1][0] != event["tid"] or stack[-1][1] <= start):
            stack.pop()
        assert not stack or end <= stack[-1][1]
        stack.append((event["tid"], end))


def test_process_and_threads_have_names_and_the_environment_is_there(examination):
    trace = parsed(examination.measurement)
    names = {event["name"]: event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"}
    assert names == {"process_name": "sentence-embedding (eager)", "thread_name": "host 1"}
    assert trace["otherData"]["environment"]["threads"] == 1


def test_a_span_that_was_cut_to_nest_keeps_its_recorded_times_beside_the_drawn_ones():
    spans = (Span("call", "model", 0.0, 1e-3, None, None), Span("a", "layer", 5e-4, 6e-4, 4e-4, 0, {"k": "naïve \n"}))
    call, late = complete(parsed(Trace("t", "chrome", spans)))
    assert (late["ts"], late["dur"], late["args"]["k"]) == (500.0, 500.0, "naïve \n")
    assert late["args"]["gnomon"] == {
        "span": 1,
        "parent": 0,
        "cpu_ns": 400_000,
        "start_ns": 500_000,
        "wall_ns": 600_000,
    }
    assert call["args"] == {"gnomon": {"span": 0, "parent": None}}


def test_a_time_before_the_start_of_the_call_is_written_with_its_sign():
    spans = (Span("early", "application", -1.5e-6, 2.5e-6, None, None),)
    (event,) = complete(parsed(Trace("t", "chrome", spans)))
    assert (event["ts"], event["dur"]) == (-1.5, 2.5)


def test_records_of_one_run_are_processes_of_one_trace(examination):
    second = Trace("other", "otlp", (Span("x", "model", 0.0, 1.0, None, None),), {"host": "b"}, ("one lost",))
    document = parsed(examination.measurement, second)
    assert {event["pid"] for event in complete(document)} == {1, 2}
    assert document["otherData"]["records"][1] == {
        "trace": "other", "origin": "otlp", "metadata": {"host": "b"}, "warnings": ["one lost"],
    }  # fmt: skip


def test_the_file_is_strict_json(examination, tmp_path):
    path = write_trace(tmp_path / "deep" / "trace.json", examination.measurement)

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refuse)["displayTimeUnit"] == "ms"
    assert [file.name for file in path.parent.iterdir()] == ["trace.json"]  # nothing temporary stays


def test_what_json_cannot_hold_is_refused(examination):
    bad = dataclasses.replace(examination.measurement, spans=(Span("a", "layer", 0.0, 1.0, None, None, {"x": 1e400}),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        chrome_trace(bad)
    with pytest.raises(DamagedData, match="their own ancestors"):
        chrome_trace(dataclasses.replace(bad, spans=(Span("a", "layer", 0.0, 1.0, None, 0),)))
