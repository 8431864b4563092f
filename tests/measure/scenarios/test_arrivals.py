import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from gnomon.measure.scenarios.arrivals import SampleOrder, poisson_ns


def test_the_first_numbers_are_those_of_std_mt19937():
    # the C++ standard, 26.6.5 [rand.predef]: the 10000th draw of a default mt19937 (seed 5489) is 4123659995
    draws = np.random.RandomState(5489).randint(0, 2**32, size=10_000, dtype=np.uint32)
    assert draws[-1] == 4123659995


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 1e5), st.integers(1, 5000), st.floats(0, 0.2))
def test_a_schedule_starts_at_0_never_goes_back_and_is_as_long_as_was_asked(seed, qps, least, duration_s):
    times = poisson_ns(qps, least, duration_s, seed)
    assert times[0] == 0
    assert (np.diff(times) >= 0).all()
    assert len(times) >= least
    assert times[-1] >= duration_s * 1e9 - 1
    assert len(times) == least or times[-2] < duration_s * 1e9  # and no longer


def test_gaps_are_exponential_with_the_rate_that_was_asked():
    gaps_s = np.diff(poisson_ns(200.0, 20_000, 0.0, seed=11)) * 1e-9
    assert kstest(gaps_s, "expon", args=(0, 1 / 200)).pvalue > 0.01


def test_the_seed_alone_decides_the_schedule():
    assert (poisson_ns(50, 100, 1, seed=3) == poisson_ns(50, 100, 1, seed=3)).all()
    assert (poisson_ns(50, 100, 1, seed=3) != poisson_ns(50, 100, 1, seed=4))[1:].all()


def test_twice_the_rate_is_the_same_schedule_in_half_the_time():
    slow, fast = poisson_ns(10, 1000, 0, seed=1), poisson_ns(20, 1000, 0, seed=1)
    assert np.abs(np.diff(slow) - 2 * np.diff(fast)).max() <= 2  # truncated to nanoseconds


@pytest.mark.parametrize("qps", [0, -5, float("nan"), float("inf")])
def test_a_rate_that_is_not_positive_is_refused(qps):
    with pytest.raises(ValueError, match="target_qps: wanted a positive number"):
        poisson_ns(qps, 1, 1, 0)


def test_a_schedule_that_no_memory_holds_is_refused():
    with pytest.raises(ValueError, match=r"1e\+09 queries per second for 600 s are too many"):
        poisson_ns(1e9, 1, 600, 0)


@given(st.integers(1, 50), st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_samples_are_drawn_among_those_loaded(count, sizes):
    order = SampleOrder(count, seed=0)
    for size in sizes:
        drawn = order.draw(size)
        assert len(drawn) == size
        assert all(0 <= one < count for one in drawn)
        follows = order.contiguous(size)
        assert all((b - a) % count == 1 % count for a, b in itertools.pairwise(follows))


def test_every_sample_has_its_turn():
    order = SampleOrder(7, seed=0)
    counts = np.bincount([order.draw(1)[0] for _ in range(14_000)], minlength=7)
    assert counts.min() > 1800


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        SampleOrder(0, seed=0)
