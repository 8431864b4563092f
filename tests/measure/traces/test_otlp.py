import json

import pytest

from gnomon.core.errors import DamagedData
from gnomon.core.records import from_json, to_json
from gnomon.measure.record import Trace
from gnomon.measure.traces.read import read_trace
from tests.measure.traces.files import otlp, otlp_span, put


def imported(folder, spans, is_lenient=False):
    return read_trace(put(folder, otlp(spans)), is_lenient)


def test_spans_in_any_order_find_their_parents_and_begin_at_zero(tmp_path):
    spans = [otlp_span("db", "0b", 1500, 1700, "0a"), otlp_span("GET /", "0a", 1000, 2000)]
    trace = imported(tmp_path, spans)
    assert [(s.name, round(s.start_s * 1e9), round(s.wall_s * 1e9), s.parent) for s in trace.spans] == [
        ("GET /", 0, 1000, None),
        ("db", 500, 200, 0),
    ]
    assert trace.metadata["resource"] == {"service.name": "shop"}
    assert trace.warnings == ("2 spans carry no level (gnomon.level); they are at the application level",)


def test_the_levels_of_gnomon_and_of_mlmodelscope_are_understood(tmp_path):
    spans = [
        otlp_span("step", "01", 1, 100, **{"gnomon.level": "model"}),
        otlp_span("conv", "02", 2, 50, "01", trace_level="FRAMEWORK_TRACE"),
        otlp_span("cudnn", "03", 3, 40, "02", trace_level="ml_library_trace"),
    ]
    trace = imported(tmp_path, spans)
    assert [span.level for span in trace.spans] == ["model", "layer", "operator"]
    assert trace.warnings == ()


def test_values_of_every_kind_are_read(tmp_path):
    values = {
        "text": {"stringValue": "x"}, "whole": {"intValue": "12"}, "whole too": {"intValue": 12},
        "number": {"doubleValue": 0.5}, "truth": {"boolValue": True}, "nothing": {}, "bytes": {"bytesValue": "AQ=="},
        "list": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "b"}]}},
        "table": {"kvlistValue": {"values": [{"key": "k", "value": {"doubleValue": 1.5}}]}},
        "endless": {"intValue": "9" * 30}, "no number": {"doubleValue": "NaN"},
    }  # fmt: skip
    span = otlp_span("a", "01", 1, 2)
    span["attributes"] = [{"key": key, "value": value} for key, value in values.items()]
    trace = imported(tmp_path, [span])
    assert trace.spans[0].attributes == {
        "text": "x", "whole": 12, "whole too": 12, "number": 0.5, "truth": True, "nothing": None, "bytes": "AQ==",
        "list": [1, "b"], "table": {"k": 1.5}, "endless": hex(10**30 - 1), "no number": "NaN",
    }  # fmt: skip
    assert from_json(to_json(trace), Trace) == trace


def test_a_parent_elsewhere_makes_a_root_and_is_told(tmp_path):
    trace = imported(tmp_path, [otlp_span("a", "01", 1, 2, "77")])
    assert trace.spans[0].parent is None
    assert "1 spans name a parent that is not in the file; they are roots" in trace.warnings


def test_work_side_by_side_without_a_thread_is_no_damage(tmp_path):
    spans = [otlp_span("a", "01", 1, 90), otlp_span("b", "02", 10, 50, "01"), otlp_span("c", "03", 20, 80, "01")]
    assert [span.parent for span in imported(tmp_path, spans).spans] == [None, 0, 0]


def threaded(*arguments):
    return otlp_span(*arguments, **{"thread.id": "1"})


FAR = 10**6  # ns; overlaps of a microsecond are roundings


@pytest.mark.parametrize(
    ("spans", "outcome", "message"),
    [
        ([otlp_span("a", "01", 9, 2)], "clock-backwards", "end before they begin: 'a' lasts -7 ns"),
        ([otlp_span("a", "01", 0, 2)], "bad-input", "times that are no nanoseconds: 'a': '0' to '2'"),
        ([otlp_span("a", "01", "x", 2)], "bad-input", "no nanoseconds: 'a': 'x'"),
        ([otlp_span("a", "01", 1, "9" * 30)], "bad-input", "no nanoseconds"),
        ([otlp_span("a", "01", 1, 5), otlp_span("b", "01", 2, 3)], "damaged-data", r"given twice: 01 \('b'\)"),
        ([otlp_span("a", "", 1, 5)], "damaged-data", "spans without an id: 'a'"),
        (
            [otlp_span("a", "01", 1, 5, "02"), otlp_span("b", "02", 1, 5, "01")],
            "damaged-data", "parents that form a circle: 'a' is its own ancestor",
        ),
        ([otlp_span("a", "01", 1, 5, "01")], "damaged-data", "parents that form a circle"),
        (
            [threaded("a", "01", 1, 5 * FAR), threaded("b", "02", FAR, 9 * FAR)],
            "overlapping-spans", "spans of one thread that overlap: 'b'",
        ),
    ],
)  # fmt: skip
def test_damage_is_refused_by_name_or_told_by_a_lenient_reader(tmp_path, spans, outcome, message):
    good = otlp_span("good", "aa", 1, 2)
    with pytest.raises(DamagedData, match=message) as refused:
        imported(tmp_path, [*spans, good])
    assert refused.value.outcome == outcome
    trace = imported(tmp_path, [*spans, good], is_lenient=True)
    assert "good" in {span.name for span in trace.spans}
    assert any(warning.startswith("1 ") for warning in trace.warnings)


@pytest.mark.parametrize(
    "document",
    [
        {"resourceSpans": 5},
        {"resourceSpans": [5, {"scopeSpans": [7, {"spans": 5}]}]},
        {"resourceSpans": [{"resource": 5, "scopeSpans": [{"spans": []}]}]},
    ],
)
def test_a_document_of_another_shape_holds_no_spans(tmp_path, document):
    with pytest.raises(DamagedData, match="holds no spans to import"):
        read_trace(put(tmp_path, json.dumps(document)))
