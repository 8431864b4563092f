import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import CheckFailed
from gnomon.measure.recorder import Recorder
from gnomon.measure.spans import parents


class Ticks:
    """A clock that goes on by one nanosecond per reading, plus what is added to `now`."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


def _record(seed, spans):
    """Random nested calls, as a program would make them: the recorder, and for each span its true parent."""
    rng, recorder, truth = random.Random(seed), Recorder(Ticks()), []

    def call(above):
        index = len(truth)
        truth.append(above)
        recorder.begin(f"span {index}")
        while len(truth) < spans and rng.random() < 0.6:
            call(index)
        recorder.end()

    while len(truth) < spans:
        call(None)
    return recorder, truth


@given(st.integers(0, 2**32), st.integers(1, 80))
def test_parents_are_those_of_the_calls_and_the_times_alone_say_the_same(seed, n):
    recorder, truth = _record(seed, n)
    spans = recorder.spans()
    assert [span.parent for span in spans] == truth
    assert [span.name for span in spans] == [f"span {i}" for i in range(n)]
    assert parents(spans).parent == tuple(truth)


@given(st.integers(0, 2**32), st.integers(1, 80))
def test_children_lie_inside_their_parent_and_never_sum_to_more(seed, n):
    spans = _record(seed, n)[0].spans()
    inside = [0.0] * n
    for span in spans:
        if span.parent is not None:
            above = spans[span.parent]
            assert above.start_s < span.start_s
            assert span.start_s + span.wall_s < above.start_s + above.wall_s
            inside[span.parent] += span.wall_s
    assert all(total <= span.wall_s for total, span in zip(inside, spans, strict=True))


def test_a_with_statement_ends_its_span_when_the_body_raises():
    recorder = Recorder(Ticks())
    with pytest.raises(KeyError), recorder.span("outer"), recorder.span("inner"):
        raise KeyError
    assert [(s.name, s.parent, round(s.wall_s * 1e9)) for s in recorder.spans()] == [
        ("outer", None, 3),
        ("inner", 0, 1),
    ]


def test_levels_are_given_by_name_and_times_count_from_the_origin():
    clock = Ticks()
    recorder = Recorder(clock)
    clock.now = 1000
    for name in ("step", "load"):
        recorder.begin(name)
        recorder.end()
    step, load = recorder.spans({"step": "model"}, origin_ns=1000)
    assert (step.level, load.level) == ("model", "application")
    assert step.start_s == pytest.approx(1e-9)
    recorder.clear()
    assert recorder.spans() == ()


def test_a_clock_that_goes_backwards_is_an_error():
    clock = Ticks()
    recorder = Recorder(clock)
    recorder.begin("a")
    clock.now -= 2
    recorder.end()
    with pytest.raises(CheckFailed, match="the clock went backwards by 1 ns while spans were recorded"):
        recorder.spans()


def test_spans_without_an_end_and_ends_without_a_span_are_errors():
    recorder = Recorder()
    recorder.begin("a")
    recorder.begin("b")
    with pytest.raises(CheckFailed, match="2 spans never ended, the innermost is 'b'"):
        recorder.spans()
    recorder = Recorder()
    with recorder.span("a"):
        pass
    recorder.end()
    with pytest.raises(CheckFailed, match="without a span that has begun, after 1 spans"):
        recorder.spans()
