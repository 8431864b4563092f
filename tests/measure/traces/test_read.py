import gzip
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import DamagedData, UsageError
from gnomon.measure.record import Span, Trace
from gnomon.measure.traces.read import read_trace
from gnomon.report.trace import chrome_trace
from tests.measure.traces.files import chrome, event, otlp, otlp_span, put

EVENTS = [event(f"s{i}", 10 * i, 5) for i in range(20)]
SPANS = tuple(Span(f"s{i}", "operator", i * 1e-5, 5e-6, None, None, {"i": i}) for i in range(20))


def test_a_profile_by_torch_is_read_whole(tmp_path):
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_stack=True) as profile:
        with torch.profiler.record_function("forward"):
            model(torch.randn(4, 8)).sum().backward()
    path = tmp_path / "profile.json.gz"
    profile.export_chrome_trace(str(path))
    trace = read_trace(path)
    layers = {span.name: span for span in trace.spans if span.level == "layer"}
    assert {"forward", "Sequential_0", "Linear_0", "ReLU_0"} <= set(layers)
    assert trace.spans[layers["Linear_0"].parent].name == "Sequential_0"
    assert layers["Linear_0"].attributes["type"] == "Linear"
    operators = {span.name: span for span in trace.spans if span.level == "operator"}
    assert trace.spans[operators["aten::addmm"].parent].name == "aten::linear"
    assert trace.spans[operators["autograd::engine::evaluate_function: ReluBackward0"].parent].name == "forward"
    recorded = {e.name(): e.duration_ns() for e in profile.profiler.kineto_results.events()}
    assert abs(operators["aten::addmm"].wall_s * 1e9 - recorded["aten::addmm"]) <= 1
    assert trace.metadata["started_at"] >= "2026"


@pytest.mark.parametrize("form", ["object", "list", "ours", "gzip"])
@given(share=st.floats(0.05, 0.999))
def test_a_cut_trace_is_refused_with_the_place_and_its_complete_events_can_be_saved(tmp_path_factory, form, share):
    folder = tmp_path_factory.mktemp("cut")
    whole = {
        "object": chrome(EVENTS),
        "list": json.dumps(EVENTS),
        "ours": chrome_trace(Trace("t", "x", SPANS)),
        "gzip": chrome(EVENTS),
    }[form].encode()
    data = gzip.compress(whole, mtime=0) if form == "gzip" else whole
    path = put(folder, data[: math.floor(share * len(data))])
    try:
        with pytest.raises(DamagedData) as refused:
            read_trace(path)
    except pytest.fail.Exception:  # the one cut that is none: a list may lack its ']'
        assert form == "list"
        assert path.read_text().rstrip(", ").endswith("}}")
        return
    outcomes = {"truncated-trace", "bad-input"}  # the latter when not even the key of the events is there
    assert refused.value.outcome in outcomes
    try:
        saved = read_trace(path, is_lenient=True)
    except DamagedData as error:
        assert "holds no spans" in str(error) or "no trace that can be read" in str(error)  # noqa: PT017
        return
    assert [span.name for span in saved.spans] == [f"s{i}" for i in range(len(saved.spans))]
    assert saved.warnings
    if form in ("object", "list"):
        complete = path.read_text().count("}}")
        assert len(saved.spans) == complete


def test_the_place_of_a_cut_is_told(tmp_path):
    path = put(
        tmp_path, '{"traceEvents":[{"ph":"X","name":"a","cat":"cpu_op","ts":0,"dur":1,"pid":1,"tid":1},{"ph":"X","na'
    )
    with pytest.raises(DamagedData, match=r"""1 complete events, then '{"ph":"X","na' at character 84""") as refused:
        read_trace(path)
    assert refused.value.outcome == "truncated-trace"
    (warning,) = read_trace(path, is_lenient=True).warnings
    assert warning.startswith("1 an end in the middle (used); the first: 1 complete events")


def test_text_behind_the_events_that_is_no_json_is_told(tmp_path):
    for text in (json.dumps(EVENTS) + " and more", chrome(EVENTS)[:-1], chrome(EVENTS) + "{"):
        path = put(tmp_path, text)
        with pytest.raises(DamagedData, match="after all 20 events"):
            read_trace(path)
        assert len(read_trace(path, is_lenient=True).spans) == 20


def test_compressed_data_that_is_damaged_is_told(tmp_path):
    data = bytearray(gzip.compress(chrome(EVENTS).encode(), compresslevel=0))
    data[len(data) // 2] ^= 255
    path = put(tmp_path, bytes(data))
    with pytest.raises(DamagedData, match="compressed data that is damaged") as refused:
        read_trace(path)
    assert refused.value.outcome == "damaged-data"


def test_a_gzip_file_of_several_members_is_one_trace(tmp_path):
    text = chrome(EVENTS).encode()
    path = put(tmp_path, gzip.compress(text[:100]) + gzip.compress(text[100:]))
    assert len(read_trace(path).spans) == 20


def test_bytes_that_are_no_utf8_are_told(tmp_path):
    path = put(tmp_path, chrome([event("naive", 0, 1)]).encode().replace(b"naive", b"na\xefve"))
    with pytest.raises(DamagedData, match="bytes that are no UTF-8: at byte"):
        read_trace(path)
    assert read_trace(path, is_lenient=True).spans[0].name == "na\ufffdve"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("hello", "it begins with 'hello'"),
        ('{"a": 1}', "its keys are 'a'"),
        ("{}", "its keys are none"),
        ('{"a": ', "it is no JSON"),
        ('{"traceEvents": []}', "holds no spans to import"),
        ('{"traceEvents": 5}', "its keys are 'traceEvents'"),
        ("[1, 2]", "entries that are no events"),
        ("[" * 100_000, "an end in the middle: 0 complete events"),
        ('{"traceEvents":' + "[" * 100_000, "an end in the middle: 0 complete events"),
    ],
)
def test_a_file_that_is_no_trace_is_told(tmp_path, text, message):
    with pytest.raises(DamagedData, match=message):
        read_trace(put(tmp_path, text))


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"none\.json cannot be read: No such file"):
        read_trace(tmp_path / "none.json")


def test_otlp_documents_one_a_line_are_one_trace(tmp_path):
    first, second = otlp([otlp_span("a", "01", 10, 90)]), otlp([otlp_span("b", "02", 20, 30, "01")])
    trace = read_trace(put(tmp_path, f"{first}\n{second}\n"))
    assert [(span.name, span.parent) for span in trace.spans] == [("a", None), ("b", 0)]


@pytest.mark.parametrize("lost", [1, 5, 60, 400])
def test_a_cut_otlp_file_is_refused_and_its_complete_spans_can_be_saved(tmp_path, lost):
    text = otlp([otlp_span(f"s{i}", f"{i:02x}", 10 * i + 1, 10 * i + 5) for i in range(1, 10)])
    path = put(tmp_path, text[:-lost])
    with pytest.raises(DamagedData, match="an end in the middle") as refused:
        read_trace(path)
    assert refused.value.outcome == "truncated-trace"
    saved = read_trace(path, is_lenient=True)
    assert [span.name for span in saved.spans] == [f"s{i}" for i in range(1, len(saved.spans) + 1)]
    assert len(saved.spans) >= 6
