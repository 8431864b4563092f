import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.measure.analyses import join
from gnomon.measure.analyses.roofline import roof
from gnomon.measure.record import LayerTime, OperatorTime
from tests.report.example import BANDWIDTH, PEAK, bound_s, make_device, make_examination, op_time


def test_the_root_has_all_flop_and_a_parent_has_the_flop_of_its_children(examination):
    rows = examination.layers()
    assert rows[0].path == ""
    assert rows[0].flop == pytest.approx(examination.graph.flop)
    encoder = next(i for i, row in enumerate(rows) if row.path == "encoder")
    assert rows[encoder].flop == pytest.approx(math.fsum(row.flop for row in rows if row.parent == encoder))


def test_layers_are_a_tree_in_pre_order_with_every_measured_module_once(examination):
    rows = examination.layers()
    assert sorted(row.path for row in rows) == sorted(layer.path for layer in examination.measurement.layers)
    for index, row in enumerate(rows):
        if row.parent is None:
            assert row.depth == 0
        else:
            above = rows[row.parent]
            assert row.parent < index
            assert row.depth == above.depth + 1
            assert row.path.startswith(above.path)
            assert row.path == (f"{above.path}.{row.label}" if above.path else row.label)


def test_a_container_that_is_never_called_is_part_of_the_label(examination):
    """ModuleList has no forward, hence no time: 'encoder.layer.3' hangs below 'encoder' as 'layer.3'."""
    assert "layer.3" in [row.label for row in examination.layers()]


def test_a_module_without_operators_has_no_flop_rather_than_zero(examination):
    lonely = LayerTime("dropout", "Dropout", 1, 1e-6, 1e-6, 1e-6, None)
    measurement = dataclasses.replace(examination.measurement, layers=(*examination.measurement.layers, lonely))
    row = next(row for row in join.layers(measurement, examination.graph) if row.path == "dropout")
    assert (row.flop, row.moved_bytes) == (None, None)


def test_backward_operators_are_no_part_of_a_layer_that_was_timed_forward(examination):
    backward = tuple(dataclasses.replace(op, phase="backward") for op in examination.graph.ops)
    graph = dataclasses.replace(examination.graph, ops=(*examination.graph.ops, *backward))
    assert join.layers(examination.measurement, graph)[0].flop == pytest.approx(examination.graph.flop)


def test_operators_without_a_root_share_the_sum_of_their_own_times(examination):
    layers = tuple(layer for layer in examination.measurement.layers if layer.path)
    measurement = dataclasses.replace(examination.measurement, layers=layers)
    rows = join.layers(measurement, examination.graph)
    tops = [row for row in rows if row.parent is None]
    assert {row.path for row in tops} == {"embeddings", "encoder", "pooling"}
    assert math.fsum(row.share for row in tops) == pytest.approx(1.0, abs=1e-3)  # a `div` outside of them is left


def test_flop_and_bytes_of_all_operators_are_those_of_the_graph(examination):
    rows = examination.operators()
    assert math.fsum(row.flop for row in rows) == pytest.approx(examination.graph.flop)
    assert math.fsum(row.moved_bytes for row in rows) == pytest.approx(examination.graph.moved_bytes)
    assert math.fsum(row.share for row in rows) == pytest.approx(1.0)


def test_distance_is_time_over_the_roofline_bound(examination):
    row = next(r for r in examination.operators() if r.name == "addmm" and r.shapes[1] == (512, 1536))
    op = next(o for o in examination.graph.ops if examination.graph.shapes(o.inputs)[1:2] == [(512, 1536)])
    assert row.calls == 6
    assert row.distance == pytest.approx(op_time(op) / bound_s(op))
    assert row.flop_s == pytest.approx(op.flop / op_time(op))
    assert row.intensity == pytest.approx(op.flop / op.moved_bytes)
    assert row.limited_by == "compute"


def test_elementwise_work_is_held_against_the_ordinary_lanes_and_matrix_work_against_the_fast_units():
    device = make_device()
    assert roof(device, "matmul", "float32").least(PEAK, 1.0) == (1.0, "compute")
    assert roof(device, "elementwise", "float32").least(20e9, 1.0) == (1.0, "compute")
    assert roof(device, "elementwise", "float32").least(1.0, BANDWIDTH) == (1.0, "memory")
    assert roof(device, "matmul", "bfloat16").least(PEAK / 8, 1.0) == (1.0, "compute")
    assert roof(device, "matmul", "float16").least(PEAK, 1.0) == (1.0, "compute")  # no such peak: float32's
    assert roof(device, "view", "float32").least(0.0, 0.0) == (0.0, "no work")


def test_a_machine_without_a_peak_has_no_bound():
    device = dataclasses.replace(make_device(), peak_flop_s={}, vector_flop_s={})
    assert roof(device, "matmul", "float32").least(1.0, 1.0) == (None, "unknown")


def test_with_several_threads_rates_are_taken_from_wall_time(examination):
    environment = dataclasses.replace(examination.measurement.environment, threads=4)
    measurement = dataclasses.replace(examination.measurement, environment=environment)
    one, four = (
        join.operators(m, examination.graph, examination.device)[0] for m in (examination.measurement, measurement)
    )
    assert (one.time_s, four.time_s) == (one.cpu_s, one.wall_s)
    assert one.cpu_s != one.wall_s


def test_an_operator_that_no_rule_knows_has_no_cost_and_no_distance():
    examination = make_examination(layers=1, unknown=True)
    row = next(row for row in examination.operators() if row.name == "mystery")
    assert (row.flop, row.intensity, row.flop_s, row.distance, row.limited_by) == (None, None, None, None, "unknown")
    assert examination.layers()[0].uncosted == 1
    assert join.floor(examination.operators()).uncosted_s == pytest.approx(row.time_s)


def _with_operators(examination, *operators):
    return dataclasses.replace(examination.measurement, operators=operators)


def test_an_operator_that_runs_three_times_in_a_module_costs_three_times_as_much(examination):
    shapes = ((1536,), (512, 384), (384, 1536))
    thrice = OperatorTime("aten.addmm.default", "encoder.layer.0.intermediate", shapes, 3, 1e-3, 1e-3)
    row = join.operators(_with_operators(examination, thrice), examination.graph, examination.device)[0]
    assert (row.calls, row.flop) == (3, 3 * 2.0 * 512 * 1536 * 384)


def test_shapes_told_differently_are_joined_by_module_when_only_one_kind_of_call_runs_there(examination):
    other = OperatorTime("aten::addmm", "encoder.layer.0.output", ((1, 2, 3),), 1, 1e-3, 1e-3)
    rows = join.operators(_with_operators(examination, other), examination.graph, examination.device)
    assert rows[0].flop == 2.0 * 512 * 1536 * 384


def test_shapes_told_differently_are_not_guessed_when_two_kinds_of_call_run_there(examination):
    both = [OperatorTime("aten::addmm", "encoder.layer.0.output", ((n,),), 1, 1e-3, 1e-3) for n in (1, 2)]
    rows = join.operators(_with_operators(examination, *both), examination.graph, examination.device)
    assert [row.flop for row in rows] == [None, None]


def test_an_operator_that_the_graph_does_not_have_is_measured_all_the_same(examination):
    alien = OperatorTime("mkldnn::_linear_pointwise", "encoder", ((8, 8),), 3, 2e-3, 2e-3)
    row = join.operators(_with_operators(examination, alien), examination.graph, examination.device)[0]
    assert (row.name, row.flop, row.cpu_s, row.category) == ("mkldnn", None, 2e-3, "unknown")


@given(
    st.lists(st.tuples(st.floats(1e-9, 1), st.none() | st.floats(0, 1), st.sampled_from(["compute", "memory"]))),
)
def test_the_parts_of_the_floor_sum_to_the_operators_time(parts):
    rows = [
        join.OperatorRow("a", (), (), "matmul", 1, t, t, t, 0.0, 1.0, 1.0, bound, limit if bound else "no work")
        for t, bound, limit in parts
    ]
    floor = join.floor(rows)
    total = floor.compute_s + floor.memory_s + floor.excess_s + floor.uncosted_s
    assert total == pytest.approx(math.fsum(t for t, _, _ in parts))
    assert min(floor.compute_s, floor.memory_s, floor.excess_s, floor.uncosted_s) >= 0
    assert floor.distance is None or floor.distance >= 1


@pytest.mark.parametrize("name", ["aten.addmm.default", "aten::addmm", "addmm", "aten::addmm.out"])
def test_an_operator_is_found_under_all_its_names(name):
    assert join.base_name(name) == "addmm"


def test_modules_are_told_in_short():
    paths = [f"encoder.layer.{i}.attention.{n}" for i in range(12) for n in ("query", "key")]
    assert join.module_pattern(paths) == "encoder.layer.*.attention.{query, key}"
    assert join.module_pattern(["", "0", "layer1.2"]) == "{, *}, layer1.*"
    assert join.module_pattern([f"m{i}.x" for i in range(5)], most=2) == "m0.x, m1.x and 3 more"
