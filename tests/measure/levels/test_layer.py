import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gnomon.core.errors import CheckFailed
from gnomon.measure.clock import Clock
from gnomon.measure.levels import layer
from gnomon.measure.levels.trace import Cost
from gnomon.measure.spans import with_parents
from gnomon.workload.program import build
from tests.measure import tasks

FREE = Cost(0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def program():
    return build(tasks.bert())


@pytest.fixture(scope="module")
def tracer(program):
    """Three traced steps."""
    tracer = layer.tracer(program, Clock(), None)
    for _ in range(3):
        with tracer.scope():
            tracer.step()
    return tracer


def _children(path, layers):
    """Direct children among measured modules, by path: the nearest measured prefix is the parent."""
    paths = {one.path for one in layers}

    def parent(of):
        while of:
            of = of.rpartition(".")[0]
            if of in paths:
                return of
        return None

    return [one for one in layers if one.path and parent(one.path) == path]


def test_every_module_that_runs_is_recorded_once_per_call(tracer, program):
    layers = {one.path: one for one in layer.layer_times(tracer.calls, tracer.modules, {}, FREE)}
    silent = {path for path, module in program.model.named_modules() if isinstance(module, nn.ModuleList)}
    silent |= {f"encoder.layer.{i}.attention.self.dropout" for i in range(2)}  # BERT hands its rate to the attention
    assert set(layers) == {path for path, _ in program.model.named_modules()} - silent
    assert {one.calls for one in layers.values()} == {1}
    assert layers["encoder.layer.1.attention.self.query"].type == "Linear"


def test_a_module_called_twice_counts_twice():
    shared = nn.Linear(8, 8)
    program = build(tasks.linear())
    model = nn.Sequential(shared, nn.ReLU(), shared)
    changed = type(program)(program.task, program.inputs, program.predict, lambda: (model(torch.ones(2, 8)),), model)
    tracer = layer.tracer(changed, Clock(), None)
    with tracer.scope():
        tracer.step()
    calls = {one.path: one.calls for one in layer.layer_times(tracer.calls, tracer.modules, {}, FREE)}
    assert calls == {"": 1, "0": 2, "1": 1}


@pytest.mark.parametrize("cost", [FREE, Cost(2e-6, 5e-6, 1e-7), Cost(1.0, 2.0, 0.0)], ids=["raw", "usual", "absurd"])
def test_children_never_sum_to_more_than_their_parent(tracer, cost):
    layers = layer.layer_times(tracer.calls, tracer.modules, {}, cost)
    for one in layers:
        inner = _children(one.path, layers)
        assert sum(child.cpu_s for child in inner) <= one.cpu_s * (1 + 1e-9)
        assert sum(child.wall_s for child in inner) <= one.wall_s * (1 + 1e-9)
        assert one.self_cpu_s == pytest.approx(one.cpu_s - sum(child.cpu_s for child in inner), abs=1e-12)


def test_self_times_of_all_layers_sum_to_the_root(tracer):
    layers = layer.layer_times(tracer.calls, tracer.modules, {}, Cost(2e-6, 5e-6, 0.0))
    root = next(one for one in layers if one.path == "")
    assert sum(one.self_cpu_s for one in layers) == pytest.approx(root.cpu_s)


@st.composite
def traced_steps(draw):
    """Module calls with known true self times, as a tracer of known cost would have seen them."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    inside, outside = rng.randint(0, 50), rng.randint(0, 50)  # ns per hooked call: in its own times, and around them
    events, truth, now = [], {}, [0]

    def run(module, depth):
        now[0] += outside
        at = len(events)
        events.append((module, True, now[0], now[0]))
        own = rng.randint(1, 1000)
        truth[module] = truth.get(module, 0) + own
        now[0] += own + inside
        for _ in range(rng.randint(0, 3) if depth < 4 else 0):
            run(rng.randint(0, 5), depth + 1)
        events.append((module, False, now[0], now[0]))
        return at

    events.append((-1, True, 0, 0))
    run(rng.randint(0, 5), 0)
    events.append((-1, False, now[0], now[0]))
    return events, truth, Cost(inside * 1e-9, (inside + outside) * 1e-9, 0.0)


@given(traced_steps())
def test_the_cost_of_the_hooks_is_taken_out_exactly(step):
    events, truth, cost = step
    modules = [(str(i), nn.Identity()) for i in range(6)]
    layers = layer.layer_times([events], modules, {}, cost)
    assert {int(one.path): one.self_cpu_s for one in layers} == pytest.approx({m: ns * 1e-9 for m, ns in truth.items()})


def test_spans_form_the_module_tree_under_the_step(tracer):
    spans, ambiguous = with_parents(layer.layer_spans(tracer.calls[0], tracer.modules, "tiny"))
    assert ambiguous == 0
    assert (spans[0].name, spans[0].level, spans[0].start_s, spans[0].parent) == ("tiny", "model", 0.0, None)
    for one in spans[2:]:
        path, above = one.attributes["module"], spans[one.parent].attributes["module"]
        assert above == "" or path.startswith(above + ".")


def test_output_shapes_are_those_of_the_model(tracer):
    shapes = tracer.output_shapes()
    assert shapes[""] == (4, 16, 64)
    assert shapes["encoder.layer.0.intermediate.dense"] == (4, 16, 256)
    assert shapes["pooler"] == (4, 64)


def test_hooks_are_gone_after_the_scope_even_when_the_step_raises(program):
    tracer = layer.tracer(program, Clock(), None)
    with pytest.raises(RuntimeError, match="stop"), tracer.scope():
        raise RuntimeError("stop")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in program.model.modules())


def test_the_device_is_waited_for_before_each_time_is_read(program):
    waits = []
    tracer = layer.tracer(program, Clock(), lambda: waits.append(None))
    with tracer.scope():
        tracer.step()
    assert len(waits) == len(tracer.calls[0])


def test_the_cost_of_a_hook_pair_is_microseconds_and_more_in_all_than_inside():
    cost = layer.hook_cost(Clock())
    assert 1e-7 < cost.inside_s < cost.total_s < 1e-3


def test_a_call_without_an_end_is_an_error():
    with pytest.raises(CheckFailed, match="1 module calls began and never ended"):
        layer.call_tree([(0, True, 0, 0)])
    with pytest.raises(CheckFailed, match="module 3 ended without having begun"):
        layer.call_tree([(0, True, 0, 0), (3, False, 1, 1)])


def test_a_program_of_another_engine_says_why_it_has_no_layers(program):
    assert "an engine other than torch" in layer.why_not(tasks.other_engine(program, {}))
    with pytest.raises(ValueError, match="no layers"):
        layer.tracer(tasks.other_engine(program, {}), Clock(), None)


def test_a_compiled_model_says_why_it_has_no_layers():
    program = build(tasks.linear())
    assert layer.why_not(program) is None
    assert "the model is compiled" in layer.why_not(tasks.compiled(program, {}))


def test_layers_of_a_training_step_are_those_of_its_forward_pass():
    program = build(tasks.training())
    tracer = layer.tracer(program, Clock(), None)
    with tracer.scope():
        tracer.step()
    assert [event[:2] for event in tracer.calls[0]] == [(-1, True), (0, True), (0, False), (-1, False)]
