"""Timing of passes by a clock that is part of what is timed: each step moves it on by what it costs."""

import random

import pytest

from gnomon.core.errors import CheckFailed
from gnomon.measure.clock import Clock
from gnomon.measure.phases.timing import Pass, PassTimes, time_passes


class Made:
    """A clock, and passes of steps that take as long as they say. reading: what a look at the clock costs."""

    def __init__(self, reading=0):
        self.now, self.reading, self.log = 0, reading, []
        self.clock = Clock(wall_ns=self.read, cpu_ns=self.read, page_faults=lambda: 0)

    def read(self):
        self.now += self.reading
        return self.now

    def one(self, name, *costs):
        def step(cost):
            def run(state):
                self.now += cost
                return (*state, cost)

            return run

        def whole():
            self.log.append(name)
            self.now += sum(costs)

        return Pass(name, lambda: (), [step(cost) for cost in costs], whole)


def test_every_step_gets_its_own_time_and_the_whole_is_their_sum():
    made = Made()
    first, second = time_passes(
        [made.one("a", 3_000_000, 5_000_000), made.one("b", 7_000_000)], made.clock, 4, budget_s=100
    )
    assert first.steps == ((0.003, 0.005),) * 4
    assert first.whole == pytest.approx((0.008,) * 4)
    assert first.typical() == (0.003, 0.005)
    assert second.typical() == (0.007,)
    assert first.cover == second.cover == pytest.approx(1)


def test_what_reading_the_clock_costs_shows_in_the_cover():
    made = Made(reading=400_000)
    (found,) = time_passes([made.one("a", *[1_000_000] * 4)], made.clock, 3, budget_s=100)
    assert found.cover > 1.2


def test_short_passes_are_repeated_and_their_times_divided():
    made = Made()
    (found,) = time_passes([made.one("a", 100_000, 300_000)], made.clock, 3, budget_s=100)
    assert found.typical() == pytest.approx((1e-4, 3e-4))
    assert len(made.log) == 1 + 3 * 5  # warm-up, then 2 ms in each round


def test_passes_take_turns_in_an_order_drawn_anew():
    made = Made()
    time_passes([made.one(name, 3_000_000) for name in "abcd"], made.clock, 8, budget_s=100, seed=1)
    rounds = ["".join(made.log[4 + 4 * i : 8 + 4 * i]) for i in range(8)]
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len(set(rounds)) > 3
    again = Made()
    time_passes([again.one(name, 3_000_000) for name in "abcd"], again.clock, 8, budget_s=100, seed=1)
    assert again.log == made.log


def test_beyond_the_budget_no_round_starts_but_three_are_made():
    made = Made()
    (slow,) = time_passes([made.one("a", 10**9)], made.clock, 50, budget_s=1)
    assert len(slow.whole) == 3
    made = Made()
    (some,) = time_passes([made.one("a", 10**9)], made.clock, 50, budget_s=9)
    assert len(some.whole) == 5  # 2 s a round


def test_steps_pass_their_state_on():
    seen = []
    one = Pass("a", lambda: 1, [lambda s: s + 1, lambda s: s * 10, seen.append], lambda: None)
    time_passes([one], Made(reading=10).clock, 3, budget_s=100)
    assert set(seen) == {20}


def test_a_clock_that_goes_backwards_is_told():
    ticks = random.Random(0)
    clock = Clock(wall_ns=lambda: 0, cpu_ns=lambda: ticks.randrange(10**9), page_faults=lambda: 0)
    with pytest.raises(CheckFailed, match="the CPU clock went backwards"):
        time_passes([Pass("a", lambda: 0, [lambda s: s] * 5, lambda: None)], clock, 9, budget_s=100)


def test_the_cover_is_the_median_over_rounds():
    found = PassTimes(((1.0, 1.0), (1.0, 2.0), (5.0, 5.0)), (2.0, 2.0, 2.0))
    assert found.cover == 1.5
