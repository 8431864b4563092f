import gc
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.core.errors import CheckFailed
from gnomon.measure.clock import Clock
from gnomon.measure.timing import Candidate, CandidateFailed, quiet_collector, time_call, time_interleaved, warm_up
from tests.measure.fakes import HandClock


def test_a_call_is_timed_by_both_clocks_with_its_page_faults():
    hand = HandClock(tick_ns=0, cpu_share=0.5)
    sample = time_call(lambda: hand.advance(1000, faults=3), hand.clock)
    assert sample == (1000.0, 500.0, 3)


def test_repeats_inside_one_timer_are_divided_out():
    hand = HandClock(tick_ns=0)
    assert time_call(lambda: hand.advance(10, faults=2), hand.clock, repeat=7) == (10.0, 10.0, 2)


def test_a_clock_going_backwards_during_a_call_is_an_error():
    readings = itertools.count(1000, -10)
    clock = Clock(lambda: next(readings), lambda: 0, lambda: 0)
    with pytest.raises(CheckFailed, match="the wall clock went backwards by 10 ns"):
        time_call(lambda: None, clock)


def test_the_device_is_waited_for_before_and_after_inside_the_timer():
    hand, order = HandClock(tick_ns=0), []

    def synchronize():
        order.append("wait")
        hand.advance(100)

    sample = time_call(lambda: order.append("call"), hand.clock, synchronize=synchronize)
    assert order == ["wait", "call", "wait"]
    assert sample.wall_ns == 100  # the second wait is part of the call, the first is not


def _warm(durations_ms, limit_s=100.0, tick_ns=100):
    hand, durations = HandClock(tick_ns), iter(durations_ms)
    return warm_up(lambda: hand.advance(round(next(durations) * 1e6)), hand.clock, limit_s)


def test_warm_up_ends_when_two_windows_of_calls_agree():
    warmup = _warm([900, 400, 150, 120, 103, 101, *[100] * 100])
    assert warmup.is_stable
    assert 8 <= warmup.calls <= 14


def test_a_task_that_keeps_changing_is_called_unstable_and_not_waited_for():
    warmup = _warm([1000 * 0.9**i for i in range(200)], limit_s=5.0)
    assert not warmup.is_stable
    assert warmup.calls < 30


def test_warm_up_of_a_short_call_lasts_a_fifth_of_a_second_at_least():
    warmup = _warm(itertools.repeat(1.0))
    assert warmup.is_stable
    assert warmup.calls >= 195


@settings(max_examples=20)
@given(tick_ns=st.integers(10, 10**7), call_ns=st.integers(10**5, 10**7))
def test_a_call_that_the_clock_cannot_resolve_is_repeated_inside_the_timer(tick_ns, call_ns):
    hand = HandClock(tick_ns)
    warmup = warm_up(lambda: hand.advance(call_ns), hand.clock, 60.0)
    assert warmup.repeat * (call_ns + tick_ns) >= 25 * tick_ns  # within a factor of two of fifty steps
    assert warmup.repeat == 1 or warmup.repeat * call_ns <= 110 * tick_ns


def test_candidates_are_timed_in_rounds_each_once_in_changing_order():
    hand, order = HandClock(), []

    def candidate(name, ns):
        def step():
            order.append(name)
            hand.advance(ns)

        return Candidate(name, step)

    samples = time_interleaved([candidate("a", 1000), candidate("b", 3000)], hand.clock, calls=40, budget_s=1.0)
    rounds = [tuple(order[i : i + 2]) for i in range(0, 80, 2)]
    assert {frozenset(pair) for pair in rounds} == {frozenset("ab")}
    assert 5 < rounds.count(("a", "b")) < 35
    assert [round(sum(s.wall_ns for s in one), -3) for one in samples] == [40_000, 120_000]


def test_a_drift_of_the_machine_cancels_in_interleaved_ratios():
    hand = HandClock(tick_ns=0)
    slow_down = [1.0]

    def step(ns):
        def call():
            slow_down[0] *= 1.01
            hand.advance(round(ns * slow_down[0]))

        return call

    candidates = [Candidate("a", step(10**6)), Candidate("b", step(2 * 10**6))]
    a, b = time_interleaved(candidates, hand.clock, calls=60, budget_s=1e9)
    ratios = sorted(y.wall_ns / x.wall_ns for x, y in zip(a, b, strict=True))
    assert 1.98 < ratios[30] < 2.02  # though the machine became three times slower on the way
    assert b[-1].wall_ns > 3 * b[0].wall_ns


def test_the_time_budget_ends_the_rounds_but_three_are_always_made():
    hand = HandClock()
    slow = [Candidate("slow", lambda: hand.advance(10**9))]
    assert len(time_interleaved(slow, hand.clock, calls=100, budget_s=0.5)[0]) == 3
    assert len(time_interleaved(slow, hand.clock, calls=100, budget_s=5.5)[0]) == 6


def test_a_candidate_that_raises_is_named():
    def step():
        raise ArithmeticError("out of luck")

    with pytest.raises(CandidateFailed, match="b: out of luck") as caught:
        time_interleaved([Candidate("a", lambda: None), Candidate("b", step)], Clock(), calls=3, budget_s=1.0)
    assert caught.value.name == "b"
    assert isinstance(caught.value.error, ArithmeticError)


def test_nothing_is_collected_inside_timers_and_the_collector_is_given_back():
    assert gc.isenabled()
    with quiet_collector() as collect:
        assert not gc.isenabled()
        collect()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_call_in_which_the_clock_sees_no_time_pass_is_an_error_with_a_name():
    clock = Clock(wall_ns=lambda: 10**9)
    with pytest.raises(CandidateFailed, match="a: the wall clock saw no time pass during 4 call") as failed:
        time_interleaved([Candidate("a", lambda: None, repeat=4)], clock, calls=3, budget_s=1.0)
    assert failed.value.error.outcome == "zero-length"
