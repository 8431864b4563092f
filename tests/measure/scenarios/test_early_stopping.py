import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from gnomon.measure.scenarios.early_stopping import (
    binomial_cdf,
    estimate,
    least_queries,
    over_latency_budget,
    server,
    single_stream,
)

shares = st.sampled_from([0.5, 0.9, 0.95, 0.97, 0.99, 0.999])


@pytest.mark.parametrize(("p", "late", "queries"), [(0.99, 0, 459), (0.99, 1, 662), (0.9, 1, 64), (0.9, 0, 44)])
def test_the_published_numbers_of_queries_come_out(p, late, queries):
    assert least_queries(late, p) == queries


def test_a_run_of_635_queries_leaves_out_the_45_slowest_at_the_90th_percentile():
    found = estimate(range(635), 0.9)
    assert over_latency_budget(635, 0.9) == 46
    assert found.discarded == 45
    assert found.estimate_s == pytest.approx((634 - 45) * 1e-9)  # the slowest of those that are left in


@given(st.integers(1, 5000), st.data(), st.floats(1e-4, 0.999))
def test_the_binomial_sum_is_that_of_scipy(n, data, q):
    t = data.draw(st.integers(0, n))
    assert binomial_cdf(t, n, q) == pytest.approx(binom.cdf(t, n, q), rel=1e-8, abs=1e-14)


@given(st.integers(0, 20_000), shares, st.sampled_from([0.9, 0.95, 0.99]))
def test_the_budget_is_the_most_that_still_proves_the_percentile(n, p, confidence):
    budget = over_latency_budget(n, p, confidence)
    if budget is None:
        assert binom.cdf(0, n, 1 - p) > 1 - confidence
    else:
        assert binom.cdf(budget, n, 1 - p) <= 1 - confidence < binom.cdf(budget + 1, n, 1 - p)


@given(st.integers(0, 500), shares)
def test_least_queries_and_budget_are_inverse_to_each_other(late, p):
    n = least_queries(late, p)
    assert over_latency_budget(n, p) == late
    assert over_latency_budget(n - 1, p) == (late - 1 if late else None)


def test_a_percentile_is_proved_wrongly_no_more_often_than_the_confidence_says():
    # latencies from 0 to 999, so the 90th percentile is 900: an estimate below it is the error that may happen in 1 %
    rng = random.Random(5)
    wrong = sum(estimate(sorted(rng.randrange(1000) for _ in range(300)), 0.9).estimate_s < 900e-9 for _ in range(2000))
    assert wrong <= binom.ppf(0.999, 2000, 0.01)


def test_too_few_queries_say_how_many_more_are_needed():
    found = estimate(range(63), 0.9)
    assert (found.is_met, found.queries_needed, found.estimate_s) == (False, 1, None)
    assert estimate(range(64), 0.9).estimate_s == pytest.approx(63e-9)


def test_a_single_stream_run_states_the_99th_percentile_once_it_can():
    assert single_stream(range(661), 0.9).multi_stream_estimate_s is None
    assert single_stream(range(662), 0.9).multi_stream_estimate_s == pytest.approx(661e-9)


@given(st.integers(459, 3000), st.data())
def test_a_server_run_is_met_exactly_within_its_budget(queries, data):
    late = data.draw(st.integers(0, 60))
    found = server(queries, late, 0.99)
    assert found.is_met == (late <= over_latency_budget(queries, 0.99))
    assert server(queries + found.queries_needed, late, 0.99).is_met


@pytest.mark.parametrize("wrong", [0.0, 1.0, 99.0, -0.1])
def test_a_percentile_outside_of_0_to_1_is_refused(wrong):
    with pytest.raises(ValueError, match=r"percentile: wanted a share between 0 and 1 .* got"):
        over_latency_budget(100, wrong)
    with pytest.raises(ValueError, match="confidence: wanted a share"):
        least_queries(1, 0.9, wrong)


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="11 slow queries among 10 cannot be"):
        server(10, 11, 0.9)
    with pytest.raises(ValueError, match="not negative; got -1"):
        least_queries(-1, 0.9)
