import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.forecast.parallel.plan import SCHEDULES
from gnomon.forecast.parallel.schedule import in_flight, order, simulate

stages = st.integers(1, 6)
counts = st.integers(1, 9)
seconds = st.floats(0.1, 10)


@given(stages, counts, seconds, seconds, st.sampled_from(SCHEDULES))
def test_equal_stages_have_the_textbook_bubble(p, m, f, b, schedule):
    line = simulate([f] * p, [b] * p, [0.0] * (p - 1), m, schedule)
    assert max(line.ends) == pytest.approx((m + p - 1) * (f + b))
    idle = 1 - line.busy[0] / max(line.ends)
    assert idle == pytest.approx((p - 1) / (m + p - 1))


@given(stages, counts, seconds)
def test_inference_fills_the_pipeline_once(p, m, f):
    assert max(simulate([f] * p, None, [0.0] * (p - 1), m, "1f1b").ends) == pytest.approx((m + p - 1) * f)


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=5), counts, seconds, st.sampled_from(SCHEDULES))
def test_no_schedule_beats_its_slowest_stage_or_its_longest_way(times, m, send, schedule):
    forward, backward = [f for f, _ in times], [b for _, b in times]
    sends = [send] * (len(times) - 1)
    total = max(simulate(forward, backward, sends, m, schedule).ends)
    assert total >= max(m * (f + b) for f, b in times) * (1 - 1e-9)
    assert total >= (sum(forward) + sum(backward) + 2 * sum(sends)) * (1 - 1e-9)
    assert total <= (m * (sum(forward) + sum(backward) + 2 * sum(sends))) * (1 + 1e-9)


@given(st.lists(st.tuples(seconds, seconds), min_size=2, max_size=4), counts, st.sampled_from(SCHEDULES), st.data())
def test_a_faster_stage_never_slows_the_whole(times, m, schedule, data):
    which = data.draw(st.integers(0, len(times) - 1))
    faster = [(f / 2, b / 2) if i == which else (f, b) for i, (f, b) in enumerate(times)]
    old, new = (
        max(simulate([f for f, _ in t], [b for _, b in t], [0.1] * (len(t) - 1), m, schedule).ends)
        for t in (times, faster)
    )
    assert new <= old * (1 + 1e-9)


@given(stages, counts)
def test_one_forward_one_backward_holds_few_micro_batches_and_gpipe_all(p, m):
    for stage in range(p):
        assert in_flight(stage, p, m, "gpipe") == m
        assert in_flight(stage, p, m, "1f1b") == min(m, p - stage)


@given(stages, counts, st.sampled_from(SCHEDULES))
def test_every_micro_batch_goes_forward_and_then_back_once(p, m, schedule):
    for stage in range(p):
        tasks = order(stage, p, m, schedule, True)
        assert len(set(tasks)) == len(tasks) == 2 * m
        for i in range(m):
            assert tasks.index((i, False)) < tasks.index((i, True))


def test_two_unequal_stages_by_hand():
    # stage 0: F0 0-1, F1 1-2, B0 8-10, B1 13-15; stage 1: F0 1-4, B0 4-8, F1 8-11, B1 11-15 would start after F1
    line = simulate([1.0, 3.0], [2.0, 4.0], [0.0], 2, "1f1b")
    assert line.ends == (17.0, 15.0)
    assert line.busy == (6.0, 14.0)
