"""Every analysis on the made-up examination, whose times and costs are known, and on a trace made by hand."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import DamagedData, UnknownName
from gnomon.core.records import from_json, to_json
from gnomon.core.stats import Interval
from gnomon.measure.analyses import registry
from gnomon.measure.analyses.analysis import Analysis
from gnomon.measure.analyses.subject import of_measurements, of_trace
from gnomon.measure.record import Measurement, Trace
from gnomon.workload.graph import OpGraph, Storage
from tests.measure.analyses.traces import FLOP, READ, WRITTEN, gpu_trace, span, tree
from tests.report.example import BANDWIDTH, LAYERS, PEAK, make_device


@pytest.fixture(scope="module")
def measured(examination):
    graph = examination.graph
    storages = tuple(
        Storage(t.bytes, t.role, next((i for i, op in enumerate(graph.ops) if k in op.outputs), -1), None)
        for k, t in enumerate(graph.tensors)
    )
    return of_measurements([examination.measurement], dataclasses.replace(graph, storages=storages), examination.device)


@pytest.fixture(scope="module")
def imported():
    return of_trace(gpu_trace(), make_device())


def ask(subject, name):
    answer = registry.analyze(subject, name)
    assert answer.missing is None, answer.missing
    return answer


def rows(answer):
    return [dict(zip([c.name for c in answer.columns], row, strict=True)) for row in answer.rows]


@pytest.mark.parametrize("name", registry.FORMS)
def test_an_answer_survives_json_and_says_its_question(name, measured):
    answer = registry.analyze(measured, name)
    assert from_json(json.loads(json.dumps(to_json(answer))), Analysis) == answer
    assert answer.question.endswith("?")
    assert (answer.missing is None) == bool(answer.rows)
    if answer.missing:
        assert name in ("device-time", "ideal-latency", "composition")


@pytest.mark.parametrize("name", registry.FORMS)
def test_records_that_went_through_json_give_the_same_answer(name, measured):
    def again(record, kind):
        return from_json(json.loads(json.dumps(to_json(record))), kind)

    second = of_measurements(
        [again(measured.measurement, Measurement)], again(measured.graph, OpGraph), measured.device
    )
    assert registry.analyze(second, name) == registry.analyze(measured, name)


def test_throughput_times_mean_latency_is_the_batch(measured):
    (row,) = rows(ask(measured, "batch-size"))
    assert row["throughput"] * row["mean_s"] == pytest.approx(row["batch"])
    assert row["throughput_low"] <= row["throughput"] <= row["throughput_high"]


def _at_batch(measurement, batch, mean, low=None, high=None):
    latency = {**measurement.latency, "mean": Interval(mean, low, high, 0.95, 3)}
    return dataclasses.replace(measurement, batch=batch, latency=latency)


def test_the_optimal_batch_is_the_smallest_within_five_per_cent_of_the_best_throughput(examination):
    times = {1: 1.0, 2: 1.1, 4: 2.04, 8: 4.0}  # throughput 1, 1.82, 1.96, 2
    subject = of_measurements([_at_batch(examination.measurement, b, t) for b, t in times.items()])
    assert [row["batch"] for row in rows(ask(subject, "batch-size")) if row["optimal"]] == [4]


def test_a_batch_whose_interval_reaches_the_bound_is_enough_and_that_is_said(examination):
    sweep = [_at_batch(examination.measurement, 1, 0.55, 0.5, 0.6), _at_batch(examination.measurement, 2, 1.0)]
    answer = ask(of_measurements(sweep), "batch-size")
    assert [row["optimal"] for row in rows(answer)] == [True, False]
    assert any("by its interval only" in note for note in answer.notes)


def test_the_model_itself_is_index_0_and_in_no_table_of_layers(measured, imported):
    for subject in (measured, imported):
        for name in ("layers", "layer-latency"):
            table = rows(ask(subject, name))
            assert 0 not in [row["index"] for row in table]
            assert "" not in [row["name"] for row in table]
    assert [row["name"] for row in rows(ask(imported, "layers"))] == ["conv1", "fc"]


def test_self_times_of_layers_sum_to_the_model_without_its_own(measured, examination):
    root = next(layer for layer in examination.measurement.layers if not layer.path)
    total = math.fsum(row["self_s"] for row in rows(ask(measured, "layer-latency")))
    assert total == pytest.approx(root.cpu_s - root.self_cpu_s)
    assert math.fsum(row["self_s"] for row in rows(ask(measured, "type-latency"))) == pytest.approx(total)


def test_layers_are_counted_by_type(measured):
    by_type = {row["type"]: row["layers"] for row in rows(ask(measured, "layer-types"))}
    assert by_type["EncoderLayer"] == LAYERS
    assert by_type["Linear"] == 6 * LAYERS
    assert "SentenceEncoder" not in by_type


def test_memory_by_type_is_the_memory_of_the_outermost_layers(measured):
    layers = {row["name"]: row["allocated_bytes"] for row in rows(ask(measured, "layer-memory"))}
    by_type = math.fsum(row["allocated_bytes"] for row in rows(ask(measured, "type-memory")))
    assert by_type == pytest.approx(layers["embeddings"] + layers["encoder"] + layers["pooling"])
    forward = sum(s.bytes for s in measured.graph.storages if s.born >= 0)
    assert 0 < by_type <= forward


def test_kernels_by_name_and_by_layer_hold_the_time_of_all_kernels(measured):
    total = math.fsum(row["seconds"] for row in rows(ask(measured, "kernels")))
    assert total == pytest.approx(math.fsum(o.cpu_s for o in measured.measurement.operators))
    for name in ("kernel-names", "layer-kernels"):
        assert math.fsum(row["seconds"] for row in rows(ask(measured, name))) == pytest.approx(total)


def test_flop_and_bytes_of_the_tables_are_those_of_the_graph(measured):
    names = rows(ask(measured, "kernel-names"))
    assert math.fsum(row["flop"] for row in names) == pytest.approx(measured.graph.flop)
    assert math.fsum(row["moved_bytes"] for row in names) == pytest.approx(measured.graph.moved_bytes)
    (model,) = rows(ask(measured, "model-roofline"))
    assert model["flop"] == pytest.approx(measured.graph.flop)
    assert model["intensity"] == pytest.approx(measured.graph.flop / measured.graph.moved_bytes)
    assert model["ridge"] == pytest.approx(PEAK / BANDWIDTH)
    assert any(note.startswith("FLOP and bytes are modelled") for note in ask(measured, "layer-work").notes)


@pytest.mark.parametrize("name", ["kernel-roofline", "layer-roofline", "model-roofline"])
def test_no_row_is_above_its_roof(name, measured):
    for row in rows(ask(measured, name)):
        if row["roof_flop_s"] is not None and row["attained_flop_s"]:
            assert row["attained_flop_s"] <= row["roof_flop_s"] * 1.05 or row["flag"]
            assert row["flag"] is None  # the example's times are above its bounds by construction


def test_a_peak_that_is_too_low_is_flagged(measured):
    peaks = {k: dataclasses.replace(q, value=q.value / 100) for k, q in measured.device.peak_flop_s.items()}
    slow = dataclasses.replace(measured.device, peak_flop_s=peaks)
    answer = ask(dataclasses.replace(measured, device=slow), "kernel-roofline")
    flagged = {row["name"] for row in rows(answer) if row["flag"] == "above the peak: the device's peak is too low"}
    assert "addmm" in flagged
    assert any("rows are above the peak" in note for note in answer.notes)


def test_cold_start_adds_up(measured):
    seconds = {row["part"]: row["least_s"] for row in rows(ask(measured, "cold-start"))}
    sessions = measured.measurement.levels[0].sessions
    assert seconds["all, to the first answer"] == min(s.import_s + s.build_s + s.first_call_s for s in sessions)
    assert seconds["of it more than a warm call"] < seconds["first call"]


def test_each_level_is_read_from_its_own_run(measured):
    table = {row["level"]: row for row in rows(ask(measured, "level-overhead"))}
    assert list(table) == ["model", "layer", "operator"]
    assert table["model"]["overhead"] is None
    assert table["operator"]["overhead"] == measured.measurement.levels[2].overhead.value
    assert table["operator"]["spans"] == len(measured.graph.ops)


# Imported traces ------------------------------------------------------------------------------------------------------


def test_times_of_a_trace_are_per_step(imported):
    table = {row["name"]: row for row in rows(ask(imported, "layers"))}
    assert table["conv1"]["latency_s"] == pytest.approx(0.006)
    assert (table["conv1"]["type"], table["conv1"]["shape"]) == ("Conv2D", "4x64x56x56")
    assert table["conv1"]["allocated_bytes"] == 1024
    (row,) = rows(ask(imported, "batch-size"))
    assert (row["batch"], row["throughput"]) == (4, pytest.approx(400))


def test_device_time_of_a_layer_is_the_sum_of_its_kernels_and_the_rest_is_the_hosts(imported):
    table = {row["name"]: row for row in rows(ask(imported, "device-time"))}
    assert table["(model)"]["device_s"] == pytest.approx(0.006)
    assert table["(model)"]["host_s"] == pytest.approx(0.004)
    assert table["conv1"]["device_s"] == pytest.approx(0.004)
    assert table["conv1"]["host_s"] == pytest.approx(0.002)
    assert table["fc"]["device_share"] == pytest.approx(2 / 3)


def test_kernels_of_a_trace_come_with_the_counters_of_its_tool(imported):
    table = {row["name"]: row for row in rows(ask(imported, "kernel-names"))}
    assert (table["sgemm"]["flop"], table["sgemm"]["moved_bytes"]) == (FLOP, READ + WRITTEN)
    assert (table["gemv"]["calls"], table["gemv"]["occupancy"]) == (2, pytest.approx(0.5))
    (model,) = rows(ask(imported, "model-roofline"))
    assert model["flop"] == pytest.approx(FLOP + 2e6)
    kernels = {row["name"]: row for row in rows(ask(imported, "kernel-roofline"))}
    assert kernels["sgemm"]["attained_flop_s"] == pytest.approx(FLOP / 0.004)
    assert kernels["gemv"]["limited_by"] == "memory"


def test_a_trace_answers_what_it_can_and_says_of_the_rest_what_is_missing(imported):
    missing = {name: registry.analyze(imported, name).missing for name in registry.FORMS}
    unanswered = {name for name, reason in missing.items() if reason}
    assert unanswered == {
        "layer-work",
        "layer-roofline",
        "ideal-latency",
        "composition",
        "cold-start",
        "level-overhead",
    }
    assert "counters" in missing["layer-work"]
    assert "does not hold what came before it" in missing["cold-start"]


@pytest.mark.parametrize("name", registry.FORMS)
def test_an_empty_trace_answers_nothing_and_says_why(name):
    answer = registry.analyze(of_trace(Trace("cut", "chrome", ())), name)
    assert answer.rows == ()
    assert len(answer.missing) > 20


def test_a_trace_cut_off_before_its_layers_is_told_apart_from_an_empty_one():
    trace = Trace("cut", "chrome", (span("step", "model", 0, 1, None),))
    answer = registry.analyze(of_trace(trace), "layers")
    assert answer.missing == "the trace 'cut' holds no spans of the layer level; it holds: model"


def test_layers_that_overlap_are_told_and_never_have_negative_time_of_their_own():
    spans = (span("step", "model", 0, 10, None), span("around", "layer", 0, 10, 0),
             span("left", "layer", 1, 6, 1), span("right", "layer", 4, 6, 1))  # fmt: skip
    answer = ask(of_trace(Trace("two streams", "chrome", spans)), "layer-latency")
    own = {row["name"]: row["self_s"] for row in rows(answer)}
    assert own == {"around": pytest.approx(1), "left": pytest.approx(6), "right": pytest.approx(6)}
    assert any(note.startswith("1 layers start before one beside them has ended (3 s in all)") for note in answer.notes)


_NODES = st.recursive(
    st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.just([])),
    lambda inner: st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.lists(inner, max_size=3)),
    max_leaves=10,
)


@given(st.lists(_NODES, min_size=1, max_size=4))
def test_whatever_the_spans_self_times_are_never_negative_nor_above_the_layers_own(nodes):
    trace = tree(nodes)
    subject = of_trace(trace)
    table = rows(ask(subject, "layer-latency"))
    assert len(table) == len(trace.spans) - 1
    for row in table:
        assert -1e-12 <= row["self_s"] <= row["latency_s"] + 1e-12
    shares = [row["share"] for row in table]
    assert sum(shares) == pytest.approx(1) or all(row["self_s"] == 0 for row in table)
    assert sum(row["layers"] for row in rows(ask(subject, "layer-types"))) == len(table)
    by_type = math.fsum(row["self_s"] for row in rows(ask(subject, "type-latency")))
    assert by_type == pytest.approx(math.fsum(row["self_s"] for row in table))


@pytest.mark.parametrize(("spans", "message"), [
    ((span("a", "layer", 0, 1, 3),), r"span 0 \(a\) names span 3 as parent; there are 1"),
    ((span("a", "layer", 0, 1, 1), span("b", "layer", 0, 1, 0)), "is its own ancestor; record it again"),
    ((span("a", "layer", 0, 1, 0),), "is its own ancestor"),
    ((span("a", "layer", 0, -1, None),), "lasts -1 s; a span cannot be negative"),
])  # fmt: skip
def test_spans_that_are_no_tree_are_damaged_data(spans, message):
    with pytest.raises(DamagedData, match=message):
        of_trace(Trace("bad", "chrome", spans))


def test_an_unknown_analysis_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"no analysis is called 'kernl-roofline'. Did you mean 'kernel-roofline'\?"):
        registry.chosen(["kernl-roofline"])


def test_the_fifteen_are_known_by_number_and_all_is_every_one():
    assert registry.chosen(["A9", "a1", "A9"]) == ["kernel-roofline", "batch-size"]
    assert registry.chosen(["all"]) == list(registry.FORMS)
    assert len(registry.chosen([f"A{i}" for i in range(1, 16)])) == 15


def test_without_graph_or_device_the_reason_is_said_and_no_zero_is_shown(examination):
    bare = of_measurements([examination.measurement])
    for name in ("layer-work", "kernel-roofline", "layer-roofline", "model-roofline", "layer-memory", "type-memory"):
        assert "no operator graph is stored" in registry.analyze(bare, name).missing
    layers = ask(bare, "layers")
    assert set(layers.column("allocated_bytes")) == {None}
    no_device = of_measurements([examination.measurement], examination.graph)
    answer = ask(no_device, "kernel-roofline")
    assert set(answer.column("of_roof")) == {None}
    assert any("no peaks of a device are stored" in note for note in answer.notes)


def test_a_level_that_was_not_available_gives_its_reason(examination):
    reason = "level 'layer' is not available: the model is compiled"
    compiled = dataclasses.replace(examination.measurement, layers=(), warnings=(reason,))
    assert registry.analyze(of_measurements([compiled]), "layers").missing == reason


@pytest.mark.parametrize("name", registry.FORMS)
def test_every_analysis_and_column_is_documented(name):
    page = (Path(__file__).parents[3] / "docs" / "analyses.md").read_text("utf-8")
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    form = registry.FORMS[name]
    assert form.question in section
    for column in form.columns:
        assert f"| `{column.name}` | {column.unit} | {column.about} |" in section
