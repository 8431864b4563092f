import json

from gnomon.report.trace import chrome_trace, write_trace


def test_there_is_one_complete_event_per_span_in_microseconds(examination):
    spans = examination.measurement.spans
    events = [event for event in chrome_trace(examination.measurement)["traceEvents"] if event["ph"] == "X"]
    assert len(events) == len(spans)
    longest = max(events, key=lambda event: event["dur"])
    assert abs(longest["dur"] - 1e6 * max(span.wall_s for span in spans)) < 0.001


def test_events_of_a_thread_nest_exactly_as_perfetto_wants(examination):
    """Of two events on a thread one holds the other or they are apart, to the nanosecond."""
    events = [event for event in chrome_trace(examination.measurement)["traceEvents"] if event["ph"] == "X"]
    stack = []
    for event in sorted(events, key=lambda e: (e["tid"], e["ts"], -e["dur"])):
        start, end = round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)
        while stack and (stack[-1][0] != event["tid"] or stack[-1][1] <= start):
            stack.pop()
        assert not stack or end <= stack[-1][1]
        stack.append((event["tid"], end))


def test_process_and_threads_have_names_and_the_environment_is_there(examination):
    trace = chrome_trace(examination.measurement)
    names = {event["name"]: event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"}
    assert names == {"process_name": "sentence-embedding (eager)", "thread_name": "host 1"}
    assert trace["otherData"]["environment"]["threads"] == 1


def test_the_file_is_strict_json(examination, tmp_path):
    path = write_trace(examination.measurement, tmp_path / "deep" / "trace.json")

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refuse)["displayTimeUnit"] == "ms"
    assert [file.name for file in path.parent.iterdir()] == ["trace.json"]  # nothing temporary stays
