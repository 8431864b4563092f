import dataclasses
import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import DamagedData
from gnomon.core.records import from_json, to_json
from gnomon.measure.record import SPAN_LEVELS, Span, Trace
from gnomon.measure.traces.read import read_trace
from gnomon.report.nesting import nest
from gnomon.report.trace import chrome_trace
from tests.measure.traces.files import chrome, event, flow, gpu_events, put


def imported(folder, events, is_lenient=False, **about):
    return read_trace(put(folder, chrome(events, **about)), is_lenient)


def by_name(trace):
    return {span.name: span for span in trace.spans}


def parent_of(trace, name):
    above = by_name(trace)[name].parent
    return None if above is None else trace.spans[above].name


def test_a_profile_of_a_gpu_becomes_levels_with_kernels_at_the_operators_that_launched_them(tmp_path):
    trace = imported(tmp_path, gpu_events())
    assert {span.name: span.level for span in trace.spans} == {
        "ProfilerStep#1": "model",
        "Linear_0": "layer",
        "aten::linear": "operator",
        "aten::addmm": "operator",
        "cudaLaunchKernel": "operator",
        "sm90_gemm": "kernel",
        "aten::relu": "operator",
        "relu_kernel": "kernel",
        "cudaDeviceSynchronize": "operator",
        "Memcpy DtoH": "kernel",
    }
    assert parent_of(trace, "ProfilerStep#1") is None
    assert parent_of(trace, "aten::linear") == "Linear_0"
    assert parent_of(trace, "cudaLaunchKernel") == "aten::addmm"
    assert parent_of(trace, "sm90_gemm") == "aten::addmm"  # by correlation id
    assert parent_of(trace, "relu_kernel") == "aten::relu"  # by external id
    assert parent_of(trace, "Memcpy DtoH") == "aten::relu"  # by the flow alone
    assert parent_of(trace, "cudaDeviceSynchronize") == "ProfilerStep#1"
    gemm = by_name(trace)["sm90_gemm"]
    assert (round(gemm.start_s * 1e9), round(gemm.wall_s * 1e9), gemm.cpu_s) == (100_000, 300_000, None)
    assert gemm.attributes["stream"] == 7
    assert by_name(trace)["aten::linear"].attributes["shapes"] == [[8, 128], [128, 128]]
    assert by_name(trace)["Linear_0"].attributes["type"] == "Linear"
    assert [warning for warning in trace.warnings if "gpu_user_annotation" in warning]


def test_kernels_that_name_no_launch_are_counted_and_have_no_parent(tmp_path):
    trace = imported(tmp_path, [event("aten::mm", 0, 5), event("gemm", 9, 5, "kernel", 7, 0)])
    assert parent_of(trace, "gemm") is None
    assert "1 kernels name no operator that launched them; they have no parent" in trace.warnings


def test_a_flow_from_nowhere_is_no_launch(tmp_path):
    events = [
        event("aten::mm", 0, 5),
        event("gemm", 9, 5, "kernel", 7, 0),
        flow("s", 50, 1, 4, 4),
        flow("f", 9, 1, 7, 0),
    ]
    assert parent_of(imported(tmp_path, events), "gemm") is None


def test_the_backward_thread_belongs_into_the_module_that_waits_for_it(tmp_path):
    events = [
        event("ProfilerStep#0", 0, 100, "user_annotation"),
        event("loss.backward", 40, 50, "user_annotation"),
        event("MmBackward0", 45, 20, thread=2),
        event("aten::mm", 46, 10, thread=2),
        event("of another process", 46, 10, thread=2, process=9),
        event("aten::add", 150, 10, thread=2),
    ]
    trace = imported(tmp_path, events)
    assert parent_of(trace, "MmBackward0") == "loss.backward"
    assert parent_of(trace, "aten::mm") == "MmBackward0"
    assert parent_of(trace, "of another process") is None
    assert parent_of(trace, "aten::add") is None


def test_pairs_of_begin_and_end_are_spans(tmp_path):
    place = {"pid": 1, "tid": 1, "cat": "cpu_op"}
    events = [
        {"ph": "B", "name": "outer", "ts": 1, **place, "args": {"a": 1}},
        {"ph": "B", "name": "inner", "ts": 2.5, **place},
        {"ph": "E", "ts": 3.25, **place, "args": {"b": 2}},
        {"ph": "E", "name": "outer", "ts": 9, **place},
        {"ph": "C", "name": "memory", "ts": 9, "pid": 1, "args": {"bytes": 1}},
    ]
    trace = imported(tmp_path, events)
    assert [(s.name, round(s.wall_s * 1e9), s.parent) for s in trace.spans] == [
        ("outer", 8000, None),
        ("inner", 750, 0),
    ]
    assert (by_name(trace)["outer"].attributes["a"], by_name(trace)["inner"].attributes["b"]) == (1, 2)
    assert "left out events that are no spans: 1 of kind 'C'" in trace.warnings


def test_a_list_of_events_may_lack_its_last_bracket(tmp_path):
    text = json.dumps([event("a", 0, 5), event("b", 1, 2)])
    for cut in (text, text[:-1], text[:-1] + ",\n"):
        assert [span.name for span in read_trace(put(tmp_path, cut)).spans] == ["a", "b"]


def test_unknown_categories_are_told_and_stay_at_the_application_level(tmp_path):
    trace = imported(tmp_path, [event("work", 0, 5, "FEE"), event("more", 1, 2, "FEE")])
    assert {span.level for span in trace.spans} == {"application"}
    assert trace.spans[1].parent == 0
    assert "put at the application level, for want of a known category: 2 of category 'fee'" in trace.warnings


def test_times_since_1970_keep_their_nanoseconds(tmp_path):
    """1.7e15 us has no room for nanoseconds in a float, so such a file is parsed with exact numbers."""
    text = (
        '[{"ph":"X","name":"a","cat":"cpu_op","ts":1763791234000000.123,"dur":0.456,"pid":1,"tid":1,"args":{"x":0.5}},'
    )
    text += '{"ph":"X","name":"b","cat":"cpu_op","ts":1763791234000000.124,"dur":0.001,"pid":1,"tid":1}]'
    trace = read_trace(put(tmp_path, text))
    assert [(round(s.start_s * 1e9), round(s.wall_s * 1e9)) for s in trace.spans] == [(0, 456), (1, 1)]
    assert trace.spans[0].attributes["x"] == 0.5
    assert trace.metadata["started_at"].startswith("2025-11-22T06:00:34.000000")


def test_the_base_of_kinetos_times_tells_when_it_began(tmp_path):
    trace = imported(tmp_path, [event("a", 1.5, 1)], baseTimeNanoseconds=1_763_791_234 * 10**9)
    assert trace.metadata["started_at"].startswith("2025-11-22T06:00:34")


@pytest.mark.parametrize(
    ("events", "outcome", "message", "kept"),
    [
        ([event("a", 5, -2), event("b", 0, 1)], "clock-backwards", "end before they begin: 'a' at 5 us lasts -2", 1),
        ([event("a", float("nan"), 1), event("b", 0, 1)], "bad-input", "times that are no numbers: 'a': ts nan", 1),
        ([event("a", 0, float("inf"))], "bad-input", "times that are no numbers: 'a': ts 0, dur inf", 0),
        ([event("a", "1", 1)], "bad-input", "times that are no numbers: 'a': ts '1'", 0),
        ([event("a", True, 1)], "bad-input", "times that are no numbers: 'a': ts True", 0),
        ([event("a", 0, 10), event("b", 5, 10)], "overlapping-spans", r"overlap: 'b' \(5000 to 15000 ns\) and 'a'", 2),
        ([{"ph": "B", "name": "a", "ts": 1, "pid": 1, "tid": 1}], "truncated-trace", r"\(B\) without an end: 'a'", 0),
        ([{"ph": "E", "name": "a", "ts": 1, "pid": 1, "tid": 1}], "truncated-trace", r"\(E\) without a beginning", 0),
        (
            [{"ph": "B", "name": "a", "ts": 5, "pid": 1}, {"ph": "E", "name": "a", "ts": 3, "pid": 1}],
            "clock-backwards", "that end before they begin: 'a' at 5 us lasts -2 us", 0,
        ),
        (
            [{"ph": "B", "name": "a", "ts": 5, "pid": 1}, {"ph": "E", "name": "a", "ts": None, "pid": 1}],
            "bad-input", "times that are no numbers: event 1", 0,
        ),
        (
            [event("l", 0, 1, "cuda_runtime", correlation=1), event("m", 3, 1, "cuda_runtime", correlation=1)],
            "damaged-data", "correlation ids given twice: 1 of 'm'", 2,
        ),
        (["text", 5, {"no": "ph"}, event("a", 0, 1)], "damaged-data", "entries that are no events: entry 0: 'text'", 1),
    ],
)  # fmt: skip
def test_damage_is_refused_by_name_or_told_by_a_lenient_reader(tmp_path, events, outcome, message, kept):
    with pytest.raises(DamagedData, match=message) as refused:
        imported(tmp_path, events)
    assert refused.value.outcome == outcome
    assert "--lenient" in str(refused.value)
    if not kept:
        with pytest.raises(DamagedData, match="holds no spans to import; 1 ") as refused:
            imported(tmp_path, events, is_lenient=True)
        assert refused.value.outcome == outcome
        return
    trace = imported(tmp_path, events, is_lenient=True)
    assert len(trace.spans) == kept
    assert trace.warnings
    from_json(to_json(trace), Trace)  # what was saved can be stored


def test_rounding_to_microseconds_is_no_overlap(tmp_path):
    events = [event("a", 0, 10), event("inner", 4, 6.5), event("next", 9.5, 10)]
    trace = imported(tmp_path, events)
    assert trace.warnings == ()
    assert (parent_of(trace, "inner"), parent_of(trace, "next")) == ("a", None)


def test_overlapping_spans_are_kept_side_by_side_with_the_parent_that_holds_both(tmp_path):
    events = [
        event("step", 0, 100),
        event("left", 10, 30),
        event("in left", 12, 5),
        event("right", 20, 40),
        event("in right", 45, 5),
        event("after", 70, 10),
    ]
    trace = imported(tmp_path, events, is_lenient=True)
    parents = {span.name: parent_of(trace, span.name) for span in trace.spans}
    assert parents == {
        "step": None, "left": "step", "in left": "left", "right": "step", "in right": "right", "after": "step",
    }  # fmt: skip
    assert [(round(s.start_s * 1e6), round(s.wall_s * 1e6)) for s in trace.spans if s.name == "right"] == [(20, 40)]
    (warning,) = trace.warnings
    assert warning.startswith("1 spans of one thread that overlap (kept side by side); the first: 'right' (20000 to")


def test_a_thread_on_which_everything_overlaps_is_refused_even_by_a_lenient_reader(tmp_path):
    events = [event(f"s{i}", 10 * i, 10_000) for i in range(1000)]
    with pytest.raises(DamagedData, match="over 64 spans of one thread overlap") as refused:
        imported(tmp_path, events, is_lenient=True)
    assert refused.value.outcome == "overlapping-spans"


def test_numbers_that_no_record_holds_become_text(tmp_path):
    trace = imported(tmp_path, [event("a", 0, 1, x=float("nan"), y=[2**70, {"z": -float("inf")}], k={"1": None})])
    kept = trace.spans[0].attributes
    assert (kept["x"], kept["y"], kept["k"]) == ("nan", [hex(2**70), {"z": "-inf"}], {"1": None})
    assert from_json(to_json(trace), Trace) == trace


# What Gnomon wrote comes back.

ATTRIBUTES = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key != "gnomon"),
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.text(max_size=8), st.lists(st.integers(0, 9))),
    max_size=3,
)


@st.composite
def nested_spans(draw):
    """A forest of spans whose intervals nest, to the nanosecond, of levels that get deeper; kernels lie anywhere."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    spans: list[Span] = []

    def grow(start, end, depth, parent):
        index = len(spans)
        cpu_s = None if rng.random() < 0.3 else rng.randint(0, end - start) * 1e-9
        attributes = draw(ATTRIBUTES) if len(spans) < 4 else {}
        name = draw(st.text(max_size=6)) if len(spans) < 4 else f"s{index}"
        spans.append(Span(name, SPAN_LEVELS[depth], start * 1e-9, (end - start) * 1e-9, cpu_s, parent, attributes))
        at = start
        while len(spans) < 25 and end > at and rng.random() < 0.7:
            low = rng.randint(at, end)
            high = rng.randint(low, end)
            grow(low, high, min(depth + rng.randint(0, 2), 3), index)
            if rng.random() < 0.2:
                late = rng.randint(0, 10**6)
                spans.append(Span("kernel", "kernel", (high + late) * 1e-9, late * 1e-9, None, len(spans) - 1, {}))
            at = high

    start = draw(st.sampled_from([-1500, 0, 7, 10**9]))
    for _ in range(draw(st.integers(1, 3))):
        end = start + rng.randint(1, 10**7)
        grow(start, end, rng.randint(0, 2), None)
        start = end + rng.randint(0, 10)
    return tuple(spans)


def in_nanoseconds(spans):
    return [
        (s.name, s.level, round(s.start_s * 1e9), round((s.start_s + s.wall_s) * 1e9),
         None if s.cpu_s is None else round(s.cpu_s * 1e9), s.parent, dict(s.attributes))
        for s in spans
    ]  # fmt: skip


@given(spans=nested_spans())
def test_spans_that_gnomon_wrote_come_back_equal(tmp_path_factory, spans):
    path = put(tmp_path_factory.mktemp("t"), chrome_trace(Trace("mine", "chrome", spans)))
    back = read_trace(path)
    assert in_nanoseconds(back.spans) == in_nanoseconds(spans)
    assert back.warnings == ()


@given(spans=nested_spans())
def test_without_what_gnomon_adds_the_nesting_is_found_again_from_times(tmp_path_factory, spans):
    """What any viewer sees of the host: each interval lies in the interval of its parent."""
    box = {i: interval(span) for i, span in enumerate(spans) if span.level != "kernel"}
    if len(set(box.values())) < len(box) or any(end <= start for start, end in box.values()):
        return  # equal or empty intervals have no one tree
    document = json.loads(chrome_trace(Trace("mine", "chrome", spans)))
    events = [e for e in document["traceEvents"] if e["ph"] == "X" and e["cat"] != "kernel"]
    for e in events:
        del e["args"]["gnomon"]
    back = read_trace(put(tmp_path_factory.mktemp("t"), chrome(events))).spans
    first = min(start for start, _ in box.values())
    found = {interval(s, first): None if s.parent is None else interval(back[s.parent], first) for s in back}
    assert found == {box[i]: None if spans[i].parent is None else box[spans[i].parent] for i in box}


def interval(span, offset_ns=0):
    return round(span.start_s * 1e9) + offset_ns, round((span.start_s + span.wall_s) * 1e9) + offset_ns


def test_a_cut_span_of_ours_comes_back_with_its_recorded_times(tmp_path):
    spans = (
        Span("call", "model", 0.0, 1e-3, 9e-4, None, {}),
        Span("a", "layer", 5e-4, 6e-4, None, 0, {"type": "Linear"}),
    )
    back = read_trace(put(tmp_path, chrome_trace(Trace("t", "x", spans))))
    assert in_nanoseconds(back.spans) == in_nanoseconds(spans)


def test_the_environment_of_a_measurement_of_ours_is_kept(tmp_path, examination):
    back = read_trace(put(tmp_path, chrome_trace(examination.measurement), "mine.json.gz"))
    assert in_nanoseconds(back.spans) == in_nanoseconds(from_json(to_json(examination.measurement)).spans)
    assert (back.name, back.metadata["task"]) == ("mine", "sentence-embedding")
    assert back.metadata["started_at"] == examination.measurement.environment.started_at


def ours(*spans, change=lambda document: None):
    document = json.loads(chrome_trace(Trace("t", "x", spans)))
    change(document)
    return json.dumps(document)


A, B = Span("a", "model", 0.0, 1e-3, None, None, {}), Span("b", "layer", 0.0, 1e-4, None, 0, {})


def told(index, **values):
    return lambda d: [e for e in d["traceEvents"] if e["ph"] == "X"][index]["args"]["gnomon"].update(values)


@pytest.mark.parametrize(
    ("change", "outcome", "message", "kept"),
    [
        (told(0, parent=1), "damaged-data", "parents that form a circle: 'a' is its own ancestor", 2),
        (told(0, parent=0), "damaged-data", "parents that form a circle", 2),
        (told(1, parent=7), "truncated-trace", "whose parent is not there: span 1 names span 7", 2),
        (told(1, span=0), "damaged-data", "spans given twice: span 0 of process 1", 1),
        (told(1, cpu_ns="x"), "damaged-data", "events with broken numbers", 1),
        (told(1, wall_ns=-5), "damaged-data", "events with broken numbers", 1),
    ],
)
def test_a_trace_of_ours_that_was_altered_is_refused_by_name(tmp_path, change, outcome, message, kept):
    path = put(tmp_path, ours(A, B, change=change))
    with pytest.raises(DamagedData, match=message) as refused:
        read_trace(path)
    assert refused.value.outcome == outcome
    saved = read_trace(path, is_lenient=True)
    assert len(saved.spans) == kept
    nest(saved.spans)  # it is a tree


def test_a_trace_of_a_later_gnomon_is_refused(tmp_path):
    path = put(tmp_path, ours(A, change=lambda d: d["otherData"].update(version=2)))
    with pytest.raises(DamagedData, match="wanted a trace of version 1, got 2; upgrade gnomon") as refused:
        read_trace(path, is_lenient=True)
    assert refused.value.outcome == "unknown-version"


def test_two_records_of_one_trace_of_ours_keep_their_parents_apart(tmp_path):
    one = Trace("one", "x", (A, B))
    back = read_trace(put(tmp_path, chrome_trace(one, dataclasses.replace(one, name="two"))))
    assert [span.parent for span in back.spans] == [None, 0, None, 2]


def test_many_events_take_time_in_proportion(tmp_path):
    """Deep and flat, with kernels: four times the events take less than eight times as long."""

    def events(count):
        steps = []
        for i in range(count // 4):
            at = 10 * i
            steps.append(event("ProfilerStep#0", at, 9, "user_annotation"))
            steps.append(event("aten::mm", at + 1, 5, **{"External id": i}))
            steps.append(event("cudaLaunchKernel", at + 2, 2, "cuda_runtime", correlation=i + 1))
            steps.append(event("gemm", at + 5, 9, "kernel", 7, 0, correlation=i + 1))
        return steps

    def seconds(count):
        path = put(tmp_path, chrome(events(count)))
        start = time.process_time()
        assert len(read_trace(path).spans) == count
        return time.process_time() - start

    assert seconds(40_000) < 8 * max(seconds(10_000), 0.05)


def test_a_deep_pile_of_spans_is_read(tmp_path):
    count = 20_000
    trace = imported(tmp_path, [event("f", i, 2 * count - 2 * i) for i in range(count)])
    assert [span.parent for span in trace.spans] == [None, *range(count - 1)]
