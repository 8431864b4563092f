import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from gnomon.measure.scenarios.percentiles import correlation_time, percentile, percentile_interval


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999]))
def test_a_percentile_is_the_element_that_the_share_of_the_others_is_below(values, p):
    found = percentile(sorted(values), p)
    assert found in values
    assert sum(v < found for v in values) <= p * len(values) < sum(v <= found for v in values) + 1e-9


def test_one_latency_is_every_percentile():
    assert [percentile([7], p) for p in (0.0, 0.5, 0.999)] == [7, 7, 7]


@pytest.mark.parametrize("p", [1.0, 100.0, -0.5])
def test_a_percentile_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match="wanted a share of at least 0 and below 1"):
        percentile([1, 2], p)


def test_no_latencies_have_no_percentile():
    with pytest.raises(ValueError, match="no latencies"):
        percentile([], 0.5)


@given(st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.99]))
def test_an_interval_holds_its_value_and_an_unknown_end_is_none(n, p):
    found = percentile_interval(np.arange(n) * 1000, p)
    assert found.low is None or found.low <= found.value
    assert found.high is None or found.high >= found.value
    assert (n, p) != (50, 0.99) or found.high is None


def test_the_interval_of_independent_latencies_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(500):
        found = percentile_interval((rng.exponential(1e6, size=500)).astype(np.int64), 0.9)
        held += found.low <= 1e-3 * np.log(10) <= found.high
    assert held >= binom.ppf(0.001, 500, 0.95)


def test_latencies_that_come_in_runs_get_a_wider_interval():
    rng = np.random.default_rng(1)
    alone = (rng.exponential(1e6, size=2000)).astype(np.int64)
    runs = np.repeat(alone[:100], 20)  # only 100 independent values
    width = [i.high - i.low for i in (percentile_interval(alone, 0.5), percentile_interval(runs, 0.5))]
    assert width[1] > 2.5 * width[0]


def test_the_correlation_time_of_an_autoregressive_series_is_the_known_one():
    rng = np.random.default_rng(0)
    series = np.zeros(100_000)
    for i, noise in enumerate(rng.normal(size=len(series) - 1), start=1):
        series[i] = 0.5 * series[i - 1] + noise
    assert correlation_time(series) == pytest.approx((1 + 0.5) / (1 - 0.5), rel=0.1)
    assert correlation_time(rng.normal(size=100_000)) == pytest.approx(1, abs=0.1)


def test_a_constant_series_has_no_correlation_to_speak_of():
    assert correlation_time(np.ones(10)) == 1.0
