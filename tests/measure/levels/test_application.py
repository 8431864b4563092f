import itertools

import pytest

from gnomon.core.errors import CheckFailed
from gnomon.measure.clock import Clock
from gnomon.measure.levels import application
from gnomon.measure.levels.application import Call, Part, application_spans
from gnomon.workload.program import build
from tests.measure import tasks


def _traced(program, calls=3):
    tracer = application.tracer(program, Clock(), None)
    for _ in range(calls):
        tracer.plain()
        with tracer.scope():
            tracer.step()
    return tracer


def test_stages_lie_inside_their_call_in_order_and_sum_to_no_more():
    tracer = _traced(build(tasks.bert(layers=1)))
    for call in tracer.calls:
        assert [part.stage for part in call.parts] == ["read", "preprocess", "run"]
        assert call.start_ns <= call.parts[0].start_ns
        for before, after in itertools.pairwise(call.parts):
            assert before.end_ns <= after.start_ns
        assert call.parts[-1].end_ns <= call.end_ns


def test_the_stages_of_all_kept_calls_are_in_the_summary():
    found = application.summary(_traced(build(tasks.linear())), [0, 2], 1, Clock(), "tiny")
    assert [stage.name for stage in found.stages] == ["call", "read", "preprocess", "run"]
    assert all(len(stage.wall_s) == len(stage.cpu_s) == 2 for stage in found.stages)
    assert [(span.name, span.level, span.parent) for span in found.spans] == [
        ("call", "application", None),
        ("read", "application", 0),
        ("preprocess", "application", 0),
        ("tiny", "model", 0),
    ]


def test_spans_count_from_the_start_of_the_call():
    parts = [Part("read", 1100, 1200, 90), Part("run", 1300, 1900, 600), Part("postprocess", 1900, 1950, 50)]
    spans = application_spans(Call(1000, 2000, 900, parts), "tiny")
    assert [(s.name, round(s.start_s * 1e9), round(s.wall_s * 1e9)) for s in spans] == [
        ("call", 0, 1000), ("read", 100, 100), ("tiny", 300, 600), ("postprocess", 900, 50),
    ]  # fmt: skip


def test_a_training_step_has_its_own_batch_again_afterwards():
    program = build(tasks.training())
    tracer = _traced(program)
    assert program.step.inputs is not program.inputs
    application.summary(tracer, [0], 0, Clock(), "tiny")
    assert program.step.inputs is program.inputs


def test_a_training_step_of_another_engine_is_told():
    program = tasks.twice(build(tasks.training()), {})
    assert "training step cannot be given another batch" in application.why_not(program)


def test_a_clock_that_goes_backwards_is_an_error():
    with pytest.raises(CheckFailed, match="the wall clock went backwards by 5 ns"):
        application_spans(Call(1000, 995, 1, []), "tiny")
