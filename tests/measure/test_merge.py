import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.measure.levels.trace import Cost, Times
from gnomon.measure.merge import Run, adopt_parents, merge
from gnomon.measure.record import SPAN_LEVELS, Span
from gnomon.measure.spans import parents

DEPTH = {"model": 0, "layer": 1, "operator": 2, "kernel": 3}


class Call:
    """A call that a program made: its own time before, between and after its children, in whole nanoseconds."""

    def __init__(self, level, name, own, children):
        self.level, self.name, self.own, self.children = level, name, own, children

    @property
    def wall(self):
        return sum(self.own) + sum(child.wall for child in self.children)


@st.composite
def programs(draw):
    """A model of layers in layers, operators in these, kernels in the operators."""
    rng, counts = random.Random(draw(st.integers(0, 2**32))), {"n": 0}

    def make(depth):
        level = ("model", "layer", "operator", "kernel")[depth]
        counts["n"] += 1
        children = []
        while depth < 3 and counts["n"] < 40 and rng.random() < 0.65:
            # layers hold layers, operators and, where nothing is inside, nothing
            children.append(make(depth if depth == 1 and rng.random() < 0.4 else depth + 1))
        names = {"layer": f"block.{rng.randint(0, 3)}", "operator": f"aten.op{rng.randint(0, 2)}.default"}
        name = {"model": "tiny", "kernel": f"gemm{rng.randint(0, 1)}", **names}[level]
        return Call(level, name, [rng.randint(1, 1000) for _ in range(len(children) + 1)], children)

    return make(0)


def _run(program, level, inside=0, outside=0):
    """The spans of a run that traces down to `level`: each traced span costs `inside` in it and `outside` around it."""
    spans = []

    def visit(call, at, parent):
        seen = DEPTH[call.level] <= DEPTH[level]
        cost = (inside, outside) if seen and call.level != "model" else (0, 0)
        index, start = len(spans), at + cost[1]
        if seen:
            attributes = {"module": call.name} if call.level == "layer" else {}
            spans.append(Span(call.name, call.level, start * 1e-9, 0.0, None, parent, attributes))
        now = start + cost[0]
        for own, child in zip(call.own, call.children, strict=False):
            now = visit(child, now + own, index if seen else parent)
        now += call.own[-1]
        if seen:
            spans[index] = replace(spans[index], wall_s=(now - start) * 1e-9)
        return now

    visit(program, 0, None)
    cost = Cost(inside * 1e-9, (inside + outside) * 1e-9, 0.0)
    return Run(level, spans, {one: cost for one in ("layer", "operator", "kernel") if inside or outside})


def _truth(program):
    """Name, level and time of every call, parents first."""
    found = []

    def visit(call):
        found.append((call.level, call.name, call.wall))
        for child in call.children:
            visit(child)

    visit(program)
    return found


def _is_nested(spans):
    inside = [0.0] * len(spans)
    for span in spans:
        if span.parent is not None:
            above = spans[span.parent]
            assert above.start_s <= span.start_s + 1e-12
            assert span.start_s + span.wall_s <= above.start_s + above.wall_s + 1e-12
            inside[span.parent] += span.wall_s
    return all(total <= span.wall_s + 1e-12 for total, span in zip(inside, spans, strict=True))


@given(programs())
def test_runs_without_overhead_merge_into_the_call_itself(program):
    merged = merge([_run(program, level) for level in ("kernel", "model", "operator", "layer")])
    whole = _run(program, "kernel").spans
    key = lambda span: (span.start_s, SPAN_LEVELS.index(span.level))  # noqa: E731
    for got, wanted in zip(sorted(merged.spans, key=key), sorted(whole, key=key), strict=True):
        assert (got.name, got.level) == (wanted.name, wanted.level)
        assert got.start_s == pytest.approx(wanted.start_s, abs=1e-12)
        assert got.wall_s == pytest.approx(wanted.wall_s, abs=1e-12)
    assert merged.shrunk == sum("shrunk" in span.attributes for span in merged.spans)


@given(programs(), st.integers(0, 300), st.integers(0, 300))
def test_every_time_is_the_untraced_one_when_each_level_is_slowed_by_what_it_traces(program, inside, outside):
    levels = ("model", "layer", "operator", "kernel")
    merged = merge([_run(program, level, inside, outside) for level in levels])
    assert _is_nested(merged.spans)
    found = sorted((s.level, s.name, round(s.wall_s * 1e9)) for s in merged.spans)
    assert found == sorted(_truth(program))
    for span in merged.spans:
        assert span.attributes["run"] == span.level


@given(programs(), st.integers(0, 2**32))
def test_runs_that_disagree_still_nest_and_what_was_shrunk_is_told(program, seed):
    """Every run at a speed of its own, as on a machine that others use."""
    rng, runs = random.Random(seed), []
    for level in ("model", "layer", "operator", "kernel"):
        spans = _run(program, level).spans
        speed = rng.uniform(0.5, 2)
        runs.append(Run(level, [replace(s, start_s=s.start_s * speed, wall_s=s.wall_s * speed) for s in spans], {}))
    merged = merge(runs)
    assert _is_nested(merged.spans)
    assert merged.shrunk == sum("shrunk" in span.attributes for span in merged.spans)
    assert all(0 < span.attributes.get("shrunk", 1) <= 1 for span in merged.spans)
    root = next(span for span in merged.spans if span.parent is None)
    assert root.wall_s == pytest.approx(runs[0].spans[0].wall_s)  # the model's time is never touched


@given(programs())
def test_a_deeper_level_adds_spans_and_takes_none(program):
    levels, before = ("model", "layer", "operator", "kernel"), set()
    for n in range(1, 5):
        spans = merge([_run(program, level) for level in levels[:n]]).spans
        now = [(s.level, s.name, round(s.wall_s * 1e9)) for s in spans]
        assert before <= set(now)
        before = set(now)


@given(programs(), st.randoms(use_true_random=False))
def test_parents_that_were_removed_and_found_again_merge_alike(program, rng):
    def shuffled(run):
        spans = list(run.spans)
        rng.shuffle(spans)
        spans = [replace(span, parent=None) for span in spans]
        tree = parents(spans)
        assert tree.ambiguous == ()
        return run._replace(spans=[replace(s, parent=p) for s, p in zip(spans, tree.parent, strict=True)])

    runs = [_run(program, level) for level in ("model", "layer", "operator", "kernel")]
    times = lambda spans: [(s.name, s.level, round(s.start_s * 1e9), round(s.wall_s * 1e9)) for s in spans]  # noqa: E731
    assert times(merge([shuffled(run) for run in runs]).spans) == times(merge(runs).spans)


def _span(name, level, start, wall, parent=None, **attributes):
    return Span(name, level, start * 1e-6, wall * 1e-6, None, parent, attributes)


def test_times_over_several_calls_are_taken_where_there_are_such():
    layer = [_span("tiny", "model", 0, 100), _span("fc", "layer", 5, 90, 0, module="fc")]
    times = [Times(110e-6, 110e-6), Times(30e-6, None)]
    spans = merge([Run("model", [_span("tiny", "model", 0, 80)], {}), Run("layer", layer, {}, times)]).spans
    fc = spans[1]
    assert (fc.wall_s, fc.attributes["traced_s"]) == (pytest.approx(30e-6), pytest.approx(30e-6))
    assert fc.start_s == pytest.approx(50e-6 * 5 / 10)  # half of what is left lies before it, as in the call


def test_the_application_holds_the_model_which_keeps_the_time_of_its_own_run():
    application = Run("application", [
        _span("application", "application", 0, 100),
        _span("preprocess", "application", 5, 30, 0),
        _span("run", "model", 40, 50, 0),
    ], {})  # fmt: skip
    layer = Run("layer", [_span("tiny", "model", 0, 90), _span("0", "layer", 10, 40, 0, module="0")], {})
    spans = merge([layer, application, Run("model", [_span("tiny", "model", 0, 45)], {})]).spans
    by_name = {span.name: span for span in spans}
    assert spans[by_name["tiny"].parent].name == "application"
    assert (by_name["tiny"].wall_s, by_name["tiny"].attributes["run"]) == (pytest.approx(45e-6), "model")
    assert by_name["tiny"].attributes["traced_s"] == pytest.approx(45e-6)
    assert spans[by_name["0"].parent].name == "tiny"
    assert by_name["0"].start_s > by_name["preprocess"].start_s + by_name["preprocess"].wall_s


def test_operators_of_the_profiler_are_those_of_the_dispatcher_and_composites_are_looked_through():
    layers = [_span("tiny", "model", 0, 100), _span("fc", "layer", 1, 90, 0, module="fc")]
    operators = Run("operator", [*layers, _span("aten.t.default", "operator", 2, 5, 1),
                                 _span("aten.addmm.default", "operator", 10, 50, 1)], {})  # fmt: skip
    device = {"device": True, "stream": 7}
    profiled = Run("kernel", [
        _span("tiny", "model", 0, 200), _span("fc", "layer", 1, 190, 0, module="fc"),
        _span("aten::linear", "operator", 3, 180, 1), _span("aten::t", "operator", 4, 20, 2),
        _span("aten::addmm", "operator", 30, 100, 2), _span("aten::copy_", "operator", 35, 10, 4),
        _span("gemm", "kernel", 150, 60, 4, launched_s=40e-6, **device),
        _span("copy", "kernel", 140, 60, 5, launched_s=36e-6, **device),
    ], {})  # fmt: skip
    spans = merge(
        [Run("model", [_span("tiny", "model", 0, 80)], {}), Run("layer", layers, {}), operators, profiled]
    ).spans
    assert [s.name for s in spans if s.level == "operator"] == ["aten.t.default", "aten.addmm.default"]
    kernels = {span.name: span for span in spans if span.level == "kernel"}
    assert {spans[one.parent].name for one in kernels.values()} == {"aten.addmm.default"}
    assert {round(one.wall_s * 1e6) for one in kernels.values()} == {60}  # a kernel is as long as the device took
    assert kernels["gemm"].start_s == pytest.approx(kernels["copy"].start_s + 60e-6)  # launched later, same stream


def test_a_kernel_that_nobody_launched_is_a_root_and_moves_nothing():
    device = {"device": True, "stream": 7}
    run = Run("kernel", [_span("tiny", "model", 0, 50), _span("Memset", "kernel", 10, 5, **device)], {})
    spans = merge([Run("model", [_span("tiny", "model", 0, 40)], {}), run]).spans
    assert [(s.name, s.parent, round(s.start_s * 1e6)) for s in spans] == [("tiny", None, 0), ("Memset", None, 10)]


@pytest.mark.parametrize("runs", [[], [Run("model", [], {}), Run("model", [], {})]])
def test_runs_of_one_level_twice_or_of_none_are_refused(runs):
    with pytest.raises(ValueError, match="wanted one run per level, at least one"):
        merge(runs)


def test_parents_are_taken_from_a_run_whose_launches_were_serialised():
    fast = [_span("tiny", "model", 0, 50), _span("a", "layer", 0, 30), _span("b", "layer", 10, 30),
            _span("gemm", "kernel", 12, 5), _span("gemm", "kernel", 20, 5),
            _span("new", "kernel", 30, 1, 2)]  # fmt: skip
    serial = [_span("tiny", "model", 0, 90), _span("a", "layer", 0, 30, 0), _span("gemm", "kernel", 3, 5, 1),
              _span("b", "layer", 40, 30, 0), _span("gemm", "kernel", 50, 5, 3)]  # fmt: skip
    spans, lost = adopt_parents(fast, serial)
    assert [span.parent for span in spans] == [None, 0, 0, 1, 2, 2]
    assert [span.wall_s for span in spans] == [span.wall_s for span in fast]
    assert lost == 1
