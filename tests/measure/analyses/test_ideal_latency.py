"""Lower bounds on graphs made up at random and on the made-up examination."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.measure.analyses import composition, ideal_latency
from gnomon.measure.analyses.subject import of_measurements
from gnomon.measure.unique import AS_IS, Composition, UniqueOperator, UniqueOperators, operator_digest
from gnomon.workload.graph import Op, OpGraph, TensorInfo
from tests.report.example import make_examination, op_time


def made(examination, factor=0.9, **changes):
    """Unique operators of the examination's graph; alone each takes `factor` of its time in the model."""
    graph, found = examination.graph, {}
    for op in graph.ops:
        shapes, dtypes = tuple(graph.shapes(op.inputs)), tuple(graph.tensors[i].dtype for i in op.inputs)
        digest = operator_digest(op.name, shapes, dtypes, op.attributes)
        calls = found[digest].calls + 1 if digest in found else 1
        found[digest] = UniqueOperator(
            digest, op.name, shapes, dtypes, op.attributes, calls, {AS_IS: factor * op_time(op)}
        )
    step = examination.measurement.cpu_latency["p50"].value
    plain = UniqueOperators(
        "t", "d", "inference", {}, "cpu", 1, {}, "cpu", step, tuple(found.values()),
        (Composition(1, 10, 4, 0.95 * step, step, 0.4 * step), Composition(4, 3, 3, None, step, step, ("x: no",))),
        1e6, 1.0,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def parts(examination, unique, with_graph=True):
    graph = examination.graph if with_graph else None
    answer = ideal_latency.analyze(of_measurements([examination.measurement], graph, None, unique))
    return {row[0]: row[1] for row in answer.rows}, answer


def test_the_parts_between_latency_and_lower_bound_add_up(examination):
    found, _ = parts(examination, made(examination))
    between = ("framework overhead", "operators in the model over alone", "algorithm", "lower bound")
    assert math.fsum(found[part] for part in between) == pytest.approx(found["measured latency"])
    times = math.fsum(op_time(op) for op in examination.graph.ops)
    assert found["lower bound"] == pytest.approx(0.9 * times)
    assert found["operators in the model over alone"] == pytest.approx(0.1 * times)


@given(st.floats(0.01, 100))
def test_the_lower_bound_never_exceeds_the_operators_in_the_model(factor):
    examination = EXAMINATION
    found = ideal_latency.bounds(made(examination, factor), examination.measurement, examination.graph)
    assert found.lower <= found.operators * (1 + 1e-9)
    assert found.critical <= found.sequential * (1 + 1e-9)
    assert found.sequential == pytest.approx(found.lower)


EXAMINATION = make_examination(layers=1)


def test_a_faster_algorithm_lowers_the_bound_and_is_named(examination):
    unique = made(examination)
    faster = tuple(
        dataclasses.replace(one, times={**one.times, "channels last": one.times[AS_IS] / 2})
        if one.name == "aten.addmm.default" else one
        for one in unique.operators
    )  # fmt: skip
    found, answer = parts(examination, dataclasses.replace(unique, operators=faster))
    gained = math.fsum(o.calls * o.times[AS_IS] / 2 for o in unique.operators if o.name == "aten.addmm.default")
    assert found["algorithm"] == pytest.approx(gained)
    assert next(row for row in answer.rows if row[0] == "algorithm")[3] == "addmm: channels last"


def test_a_faster_dtype_stands_below_the_bound_and_not_in_it(examination):
    unique = made(examination)
    other = tuple(dataclasses.replace(one, other_dtype={"bfloat16": one.times[AS_IS] / 4}) for one in unique.operators)
    found, _ = parts(examination, dataclasses.replace(unique, operators=other))
    plain, _ = parts(examination, unique)
    assert found["lower bound"] == plain["lower bound"]
    assert found["below it: bfloat16"] == pytest.approx(0.75 * plain["lower bound"])
    assert "below it: bfloat16" not in plain


def test_an_operator_that_cannot_run_alone_is_named(examination):
    unique = made(examination)
    lost = dataclasses.replace(unique.operators[0], name="aten.mystery.default", times={}, failure="no", shapes=())
    _, answer = parts(examination, dataclasses.replace(unique, operators=(lost, *unique.operators[1:])))
    assert any(note == "not run alone, in no bound: aten.mystery.default" for note in answer.notes)


def test_a_bound_above_the_latency_is_told(examination):
    measurement = dataclasses.replace(examination.measurement, operators=())
    unique = made(examination, factor=3)
    answer = ideal_latency.analyze(of_measurements([measurement], None, None, unique))
    assert any("the bound is above the latency" in note for note in answer.notes)
    assert any("no operator graph is stored" in note for note in answer.notes)


def test_composition_says_error_saving_and_what_could_not_run(examination):
    answer = composition.analyze(of_measurements([examination.measurement], None, None, made(examination)))
    by_name = [dict(zip([c.name for c in answer.columns], row, strict=True)) for row in answer.rows]
    assert by_name[0]["error"] == pytest.approx(-0.05)
    assert by_name[0]["within"] is True
    assert by_name[0]["saved"] == pytest.approx(2.5)
    assert (by_name[1]["error"], by_name[1]["within"]) == (None, None)
    assert "length 4: x: no" in answer.notes


def test_an_operator_is_the_same_after_a_store_that_writes_whole_numbers_short():
    as_captured = operator_digest("aten.add.Tensor", [(2,)], ["float32"], {"alpha": 1.0, "sizes": (2, 3.0)})
    assert as_captured == operator_digest("aten.add.Tensor", [[2]], ["float32"], {"sizes": [2, 3], "alpha": 1})
    assert as_captured != operator_digest("aten.add.Tensor", [[2]], ["float32"], {"sizes": [2, 3], "alpha": 1.5})


# Graphs at random -----------------------------------------------------------------------------------------------------


def graph_of(wiring, category="elementwise"):
    """Operator i reads the results of the earlier ones that `wiring[i]` names, or the input 0, and makes one tensor."""
    tensors = [TensorInfo((2,), "float32", 0, "input")]
    ops = []
    for i, sources in enumerate(wiring):
        inputs = tuple(sorted({s % i + 1 for s in sources})) if i and sources else (0,)
        tensors.append(TensorInfo((2,), "float32", i + 1, "activation"))
        ops.append(Op(f"aten.op{i}.default", "", "", "forward", category, inputs, (i + 1,), 1.0, 8.0, 8.0))
    return OpGraph("drawn", "inference", tuple(ops), tuple(tensors), 0)


_WIRING = st.lists(st.lists(st.integers(0, 50), max_size=3), min_size=1, max_size=12)


@given(_WIRING, st.data())
def test_the_critical_path_is_the_longest_path_of_the_graph_and_at_most_the_sequential_sum(wiring, data):
    graph = graph_of(wiring)
    seconds = data.draw(st.lists(st.floats(0, 10), min_size=len(graph.ops), max_size=len(graph.ops)))
    ends = []
    for op, time in zip(graph.ops, seconds, strict=True):  # oracle: longest path over tensors
        ends.append(time + max([ends[i - 1] for i in op.inputs if i], default=0.0))
    found = ideal_latency.critical_path(graph, seconds)
    assert found == pytest.approx(max(ends))
    assert max(seconds) <= found <= math.fsum(seconds) * (1 + 1e-9)


@given(_WIRING, st.data())
def test_fusion_saves_nothing_below_zero_and_leaves_the_longest_operator(wiring, data):
    graph = graph_of(wiring)
    seconds = data.draw(st.lists(st.floats(0, 10), min_size=len(graph.ops), max_size=len(graph.ops)))
    saved = ideal_latency.fusion(graph, seconds)
    assert -1e-9 <= saved <= math.fsum(seconds) - max(seconds) + 1e-9


def test_a_chain_of_elementwise_operators_melts_into_its_longest_member():
    assert ideal_latency.fusion(graph_of([[], [0], [1]]), [1.0, 3.0, 2.0]) == pytest.approx(3.0)
    assert ideal_latency.fusion(graph_of([[], [0], [1]], "matmul"), [1.0, 3.0, 2.0]) == 0.0


def test_a_result_that_two_operators_use_is_written_and_not_melted():
    wiring = [[], [0], [0]]
    assert ideal_latency.fusion(graph_of(wiring), [1.0, 1.0, 1.0]) == 0.0


def test_branches_count_once_and_writers_in_place_wait_for_readers():
    diamond = graph_of([[], [0], [0], [1, 2]])
    assert ideal_latency.critical_path(diamond, [1.0, 5.0, 2.0, 1.0]) == 7.0
    tensors = (TensorInfo((2,), "float32", 0, "input"), TensorInfo((2,), "float32", 1, "activation"),
               TensorInfo((2,), "float32", 0, "activation"))  # fmt: skip
    reader = Op("aten.exp.default", "", "", "forward", "elementwise", (0,), (1,), 1.0, 8.0, 8.0)
    writer = Op("aten.add_.Tensor", "", "", "forward", "elementwise", (0,), (2,), 1.0, 8.0, 8.0)
    graph = OpGraph("in place", "inference", (reader, writer), tensors, 0)
    assert ideal_latency.critical_path(graph, [2.0, 3.0]) == 5.0
