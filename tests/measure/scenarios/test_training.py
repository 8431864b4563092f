import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import CheckFailed
from gnomon.core.records import from_json, to_json
from gnomon.measure.scenarios.training import train, training_result
from gnomon.spec.task import Scenario
from tests.measure.fakes import HandClock

MS = 10**6


def steps(hand, losses, ms=2):
    """A step that takes `ms` and returns the losses in turn, then the last one again."""
    left = list(losses)

    def step():
        hand.advance(ms * MS)
        return left.pop(0) if len(left) > 1 else left[0]

    return step


def trained(losses=(1.0,), evaluate=None, higher=True, ms=2, **keys):
    hand = HandClock(tick_ns=0)
    scenario = Scenario("training-steps", **{"min_duration_s": 0.0, **keys})
    step = steps(hand, losses, ms)
    run = train(scenario, step, evaluate and (lambda: evaluate(hand)), higher_is_better=higher, clock=hand.clock)
    return training_result(scenario, run, batch=4, peak_rss_bytes=10**8, metric="recall", higher_is_better=higher)


@given(st.integers(1, 200), st.integers(1, 20))
def test_throughput_is_steps_over_time_and_samples_are_as_many_as_the_batch(count, ms):
    got = trained(ms=ms, min_queries=count)
    assert (got.steps, got.outcome) == (count, "no-target")
    assert got.duration_s == pytest.approx(count * ms * 1e-3)
    assert got.steps_per_s.value == pytest.approx(1000 / ms)
    assert got.samples_per_s == pytest.approx(4 * got.steps_per_s.value)


def test_the_interval_of_uneven_steps_holds_their_rate():
    hand = HandClock(tick_ns=0)
    scenario = Scenario("training-steps", min_queries=100, min_duration_s=0.0)
    turn = iter(range(1000))

    def step():
        hand.advance((1 + next(turn) % 7) * MS)
        return 0.5

    got = training_result(scenario, train(scenario, step, clock=hand.clock), batch=1, peak_rss_bytes=1).steps_per_s
    assert got.low < got.value < got.high
    assert got.value == pytest.approx(100 / sum((1 + i % 7) * 1e-3 for i in range(100)))


def test_a_loss_is_reached_when_the_mean_of_the_last_ones_is_low_enough():
    losses = [1.0] * 9 + [0.0] + [0.2] * 30  # one low loss by chance is not enough
    got = trained(losses, target_loss=0.25, max_queries=100, evaluate_every=5)
    assert (got.outcome, got.steps_to_target) == ("reached", 15)
    assert got.time_to_target_s == pytest.approx(0.030)
    assert got.said.startswith("mean loss of 5 steps <= 0.25 was reached after 15 steps")


def test_a_quality_is_looked_at_every_so_often_and_its_time_is_kept_apart():
    qualities = iter([0.1, 0.5, 0.8, 0.9])

    def evaluate(hand):
        hand.advance(50 * MS)
        return next(qualities)

    got = trained(evaluate=evaluate, target_quality=0.75, max_queries=100, evaluate_every=4)
    assert (got.outcome, got.steps_to_target, got.target) == ("reached", 12, "recall >= 0.75")
    assert got.time_to_target_s == pytest.approx(0.024)
    assert got.evaluation_s == pytest.approx(0.150)
    assert [(p.step, p.value) for p in got.quality_curve] == [(4, 0.1), (8, 0.5), (12, 0.8)]


def test_a_metric_of_which_less_is_better_is_reached_from_above():
    qualities = iter([0.9, 0.3])
    got = trained(evaluate=lambda hand: next(qualities), higher=False, target_quality=0.5, max_queries=100)
    assert (got.outcome, got.steps, got.target) == ("reached", 20, "recall <= 0.5")


@pytest.mark.parametrize("limit", [{"max_queries": 40}, {"max_duration_s": 0.080}])
def test_a_target_that_is_not_reached_is_said(limit):
    keys = {"min_queries": 1, "target_quality": 0.9, **limit}
    got = trained(evaluate=lambda hand: 0.4, **keys)
    assert (got.outcome, got.steps, got.time_to_target_s) == ("not-reached", 40, None)
    assert got.said == "recall >= 0.9 was not reached in 40 steps, 0.08 s of training; it was 0.4 at the end"


def test_the_loss_curve_is_thinned_but_keeps_its_ends():
    got = trained([float(i) for i in range(5000)], min_queries=5000)
    assert len(got.loss_curve) == 2000
    assert (got.loss_curve[0].step, got.loss_curve[-1].step) == (1, 5000)
    assert all(point.value == point.step - 1 for point in got.loss_curve)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training(bad):
    with pytest.raises(CheckFailed, match=f"the loss is {bad} after 3 steps"):
        trained([1.0, 0.9, bad], min_queries=10)
    with pytest.raises(CheckFailed, match="the quality is nan after 10 steps"):
        trained(evaluate=lambda hand: math.nan, target_quality=0.5, max_queries=100)


def test_a_clock_that_goes_backwards_or_stands_still_is_told():
    with pytest.raises(CheckFailed, match="wall clock went backwards"):
        trained(ms=-1, min_queries=3)
    with pytest.raises(CheckFailed, match="saw no time pass"):
        trained(ms=0, min_queries=3)


def test_a_quality_needs_a_way_to_evaluate():
    with pytest.raises(ValueError, match="target_quality needs a way to evaluate"):
        trained(target_quality=0.5, max_queries=100)


def test_a_result_round_trips():
    got = trained(min_queries=20)
    assert from_json(to_json(got)) == got
