import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.drift import change_within, step, trend

SERIES = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=40)


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=30, unique=True))
def test_the_trend_of_a_short_series_has_the_exact_p_of_scipy(values):
    expected = scipy.stats.kendalltau(range(len(values)), values, method="exact").pvalue
    assert trend(values).p == pytest.approx(expected, rel=1e-9)


@given(values=st.lists(st.integers(0, 5), min_size=3, max_size=60))
def test_with_ties_the_trend_has_the_asymptotic_p_of_scipy(values):
    if len(set(values)) == 1:
        assert trend(values).p == 1.0
    elif len(set(values)) < len(values) or len(values) > 30:
        expected = scipy.stats.kendalltau(range(len(values)), values, method="asymptotic").pvalue
        assert trend(values).p == pytest.approx(expected, rel=1e-9)


@given(values=SERIES)
def test_the_slope_is_that_of_scipy(values):
    assert trend(values).slope == pytest.approx(scipy.stats.theilslopes(values).slope, abs=1e-9)


@given(values=SERIES)
def test_backwards_the_trend_is_the_opposite(values):
    there, back = trend(values), trend(values[::-1])
    assert (back.slope, back.p) == (pytest.approx(-there.slope, abs=1e-9), pytest.approx(there.p))


def test_a_rising_series_rises():
    found = trend([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    assert (found.slope, found.p) == (pytest.approx(0.1), pytest.approx(2 / math.factorial(6)))


@pytest.mark.parametrize("n", [5, 8, 20])
def test_a_step_where_there_is_none_is_found_as_often_as_p_says(n):
    draws = np.random.default_rng(n).normal(1.0, 0.1, (1500, n))
    found = sum(step(row.tolist()).p < 0.05 for row in draws)
    assert abs(found / 1500 - 0.05) < 5 * math.sqrt(0.05 * 0.95 / 1500)


@given(before=st.integers(3, 10), after=st.integers(3, 10), size=st.sampled_from([-0.3, 0.3]))
def test_a_clear_step_is_found_where_it_is(before, after, size):
    noise = np.random.default_rng(before * 100 + after).normal(0, 0.01, before + after)
    found = step((noise + np.repeat([1.0, 1.0 + size], [before, after])).tolist())
    assert (found.at, found.change) == (before, pytest.approx(size, abs=0.03))
    assert found.p < 0.01


@given(seed=st.integers(0, 10**6), n=st.integers(5, 20), unit=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_a_step_is_where_scipys_t_is_largest_whatever_the_unit(seed, n, unit, shift):
    values = np.random.default_rng(seed).normal(0, 1, n)
    expected = [abs(scipy.stats.ttest_ind(values[:k], values[k:]).statistic) for k in range(2, n - 1)]
    found = step((unit * values + shift).tolist())
    assert expected[found.at - 2] == pytest.approx(max(expected), rel=1e-6)
    assert found.change == pytest.approx(unit * (values[found.at :].mean() - values[: found.at].mean()), abs=1e-9)


def test_a_series_that_stands_still_has_no_step():
    assert step([2.0] * 6).p == 1.0


def test_one_value_that_stands_out_is_no_step():
    noise = np.random.default_rng(1).normal(1.0, 0.01, 12)
    noise[-1] += 1.0
    assert step(noise.tolist()).p > 0.05


@given(first=st.floats(0.5, 2.0), n=st.integers(3, 30), change=st.floats(-0.3, 0.3))
def test_the_change_within_a_session_is_that_of_its_line(first, n, change):
    line = np.linspace(first * (1 - change / 2), first * (1 + change / 2), n)
    assert change_within(line.tolist()) == pytest.approx(change, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trend([1.0, 2.0]), "at least 3 values to look for a drift; got 2"),
        (lambda: step([1.0] * 4), "at least 5 values to look for a drift; got 4"),
        (lambda: trend([1.0, math.nan, 2.0]), "wanted finite values; got nan"),
        (lambda: change_within([0.0, 0.0, 0.0]), "wanted times, which are positive"),
    ],
)
def test_series_that_say_nothing_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
