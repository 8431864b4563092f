from collections import Counter

import pytest
import torch

from gnomon.core.stats import trimmed_mean
from gnomon.measure.clock import Clock
from gnomon.measure.levels import layer, operator
from gnomon.measure.levels.trace import Cost, typical
from gnomon.measure.spans import with_parents
from gnomon.measure.timing import Candidate, time_interleaved
from gnomon.workload.capture import capture_task
from gnomon.workload.program import build
from tests.measure import tasks

FREE = Cost(0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def program():
    return build(tasks.bert())


@pytest.fixture(scope="module")
def tracer(program):
    tracer = operator.tracer(program, Clock(), None)
    for _ in range(3):
        with tracer.scope():
            tracer.step()
    return tracer


def test_the_operators_are_those_of_the_captured_graph_with_their_modules_and_shapes(tracer, program):
    """An independent oracle: capture runs on fake tensors and times nothing."""
    graph = capture_task(program.task)
    captured = Counter((op.name, op.module) for op in graph.ops)
    measured = Counter()
    for one in operator.operator_times(tracer.calls, tracer.modules, FREE):
        measured[one.name, one.module] += one.calls
    assert measured == captured
    products = Counter(
        (op.module, tuple(graph.shapes(op.inputs))) for op in graph.ops if op.name == "aten.addmm.default"
    )
    times = operator.operator_times(tracer.calls, tracer.modules, FREE)
    assert Counter({(t.module, t.shapes): t.calls for t in times if t.name == "aten.addmm.default"}) == products


def test_tracing_leaves_the_outputs_bit_for_bit(program):
    plain = program.step()
    with operator.tracer(program, Clock(), None).scope():
        traced = program.step()
    assert all(torch.equal(a, b) for a, b in zip(plain, traced, strict=True))


def test_each_level_sees_all_that_the_level_above_sees(tracer, program):
    """Trace level monotone: module calls of the layer level are a subset of the operator level's spans."""
    shallow = layer.tracer(program, Clock(), None)
    with shallow.scope():
        shallow.step()
    layers = Counter(s.name for s in layer.layer_spans(shallow.calls[0], shallow.modules, "tiny"))
    operators = Counter(s.name for s in operator.operator_spans(tracer.calls[0], tracer.modules, "tiny"))
    assert layers <= operators
    assert operators.total() > layers.total()


def test_spans_nest_and_operators_lie_in_the_module_that_ran_them(tracer):
    spans, ambiguous = with_parents(operator.operator_spans(tracer.calls[0], tracer.modules, "tiny"))
    assert ambiguous == 0
    inner = [0.0] * len(spans)
    for one in spans:
        if one.parent is None:
            assert one.level == "model"
            continue
        above = spans[one.parent]
        inner[one.parent] += one.wall_s
        assert above.start_s <= one.start_s + 1e-12
        assert one.start_s + one.wall_s <= above.start_s + above.wall_s + 1e-12
        if one.level == "operator":
            assert above.level == "layer"
            assert above.attributes["module"] == one.attributes["module"]
    assert all(total <= one.wall_s + 1e-9 for total, one in zip(inner, spans, strict=True))


def test_the_tracers_cost_is_taken_out_per_call(tracer):
    raw = operator.operator_times(tracer.calls, tracer.modules, FREE)
    less = {
        (t.name, t.module, t.shapes): t for t in operator.operator_times(tracer.calls, tracer.modules, Cost(1e-7, 0, 0))
    }
    for one in raw:
        changed = less[one.name, one.module, one.shapes]
        assert changed.cpu_s == pytest.approx(max(one.cpu_s - one.calls * 1e-7, 0.0))
    assert all(t.cpu_s == 0.0 for t in operator.operator_times(tracer.calls, tracer.modules, Cost(1.0, 0, 0)))


def test_the_cost_of_a_bracket_is_microseconds_and_more_in_all_than_inside():
    cost = operator.bracket_cost(Clock())
    assert 0 < cost.inside_s < cost.total_s < 1e-3


def test_the_backward_pass_and_the_optimizer_are_seen():
    program = build(tasks.training())
    tracer = operator.tracer(program, Clock(), None)
    with tracer.scope():
        tracer.step()
    names = {one.name for one in operator.operator_times(tracer.calls, tracer.modules, FREE)}
    assert {"aten.addmm.default", "aten.mm.default"} <= names
    assert any("foreach" in name or "add_" in name for name in names)


def test_tensors_inside_lists_have_their_shapes_recorded():
    assert operator._shapes(([torch.ones(2), torch.ones(3, 1)], 1), {"out": torch.ones(4)}) == [(2,), (3, 1), (4,)]


def test_operators_and_python_together_are_the_step(program):
    """Large matrix products: Python hardly counts, so operators must sum to the CPU time of the untraced step."""
    program = build(tasks.bert(layers=1, width=512, batch=8, length=64))
    program.step()
    clock, tracer = Clock(), operator.tracer(program, Clock(), None)
    candidates = [Candidate("untraced", program.step), Candidate("traced", tracer.step, scope=tracer.scope)]
    untraced, traced = time_interleaved(candidates, clock, calls=12, budget_s=20.0)
    steps = [tracer.calls[i] for i in typical(traced)]
    total = sum(one.cpu_s for one in operator.operator_times(steps, tracer.modules, operator.bracket_cost(clock)))
    assert 0.8 < total / trimmed_mean([sample.cpu_ns * 1e-9 for sample in untraced]) < 1.15
