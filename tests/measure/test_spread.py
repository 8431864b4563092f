import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.measure.record import Session
from gnomon.measure.spread import of_times, spread


def sessions(between, within, n, calls, seed=0):
    """Sessions whose paces spread by `between`, their calls by `within` (standard deviations of logarithms)."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(n):
        cpu = np.exp(rng.normal(0, between) + rng.normal(0, within, calls))
        made.append(Session(tuple(cpu**2), tuple(cpu), (0,) * calls, 9, True, 1.0, 0.1, 0.1, 10**8))
    return made


def test_the_spread_between_sessions_is_found():
    found = spread(sessions(0.05, 0.001, 400, 10), "cpu")
    assert found.between.value == pytest.approx(0.05, rel=0.15)
    assert found.between.low < 0.05 < found.between.high


def test_where_only_calls_spread_both_spreads_agree():
    found = spread(sessions(0.0, 0.1, 400, 20), "cpu")
    assert found.within == pytest.approx(found.between.value, rel=0.2)


def test_a_perfect_forecast_is_scored_at_the_floor():
    rng, n, spread_ = np.random.default_rng(3), 4, 0.05
    errors, floors, alone = [], [], []
    for _ in range(2000):
        times = np.exp(rng.normal(0, spread_, n))
        found = of_times(times.tolist(), "cpu")
        errors.append(abs(np.log(times).mean()))  # the truth is 1
        floors.append(found.floor)
        alone.append(found.one_session)
    assert np.mean(errors) == pytest.approx(np.mean(floors) / 0.921, rel=0.06)  # c4(4): an sd of 4 is 8 % low
    assert np.mean(alone) == pytest.approx(2 * np.mean(floors))


@given(times=st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=9), unit=st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(times, unit):
    one, other = of_times(times, "wall"), of_times([unit * t for t in times], "wall")
    assert other.floor == pytest.approx(one.floor, abs=1e-9)
    assert one.between.value == pytest.approx(np.log(times).std(ddof=1), abs=1e-9)


def test_equal_sessions_have_no_floor_above_zero():
    assert of_times([2.0, 2.0, 2.0], "cpu").floor == 0.0


def test_one_session_does_not_know_what_sessions_differ_by():
    found = spread(sessions(0.1, 0.1, 1, 10), "cpu")
    assert (found.sessions, found.floor, found.one_session, found.between.high) == (1, None, None, None)
    assert found.within > 0


def test_a_single_call_has_no_repeats():
    assert spread(sessions(0.1, 0.1, 3, 1), "cpu").within is None


def test_the_clock_is_the_one_asked_for():
    made = sessions(0.05, 0.0, 10, 4)
    assert math.isclose(spread(made, "wall").between.value, 2 * spread(made, "cpu").between.value)


@pytest.mark.parametrize("times", [[], [1.0, 0.0]])
def test_no_times_have_no_spread(times):
    with pytest.raises(ValueError, match="wanted the positive time of at least one session"):
        of_times(times, "cpu")
