import math

import numpy as np
import pytest
import scipy.stats

from gnomon.core.looks import Looks, until
from gnomon.core.stats import ratio_test

SIZES = (3, 4, 6, 9, 13, 20)
TRIALS = 2000


def answers(draw, looks, margin=None, trials=TRIALS, seed=1):
    """The verdict at the first look that decides, for each of `trials` series of log ratios `draw(rng, n)`."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(trials):
        times = np.exp(draw(rng, looks.most)).tolist()
        for n in looks.sizes:
            test = ratio_test(times[:n], [1.0] * n, margin=margin, looks=looks)
            if test.verdict != "undecided":
                break
        found.append(test.verdict)
    return found


def share(verdicts, *wanted):
    return sum(verdict in wanted for verdict in verdicts) / len(verdicts)


def standard_errors(level, trials=TRIALS):
    return math.sqrt(level * (1 - level) / trials)


def test_equal_variants_are_called_different_one_time_in_twenty_however_often_one_looks():
    found = answers(lambda rng, n: rng.normal(0, 0.05, n), Looks(SIZES))
    assert abs(share(found, "faster", "slower") - 0.05) < 4 * standard_errors(0.05)


def test_without_the_correction_looking_again_and_again_finds_far_too_much():
    rng, found = np.random.default_rng(1), 0
    for _ in range(TRIALS):
        times = np.exp(rng.normal(0, 0.05, 20)).tolist()
        found += any(ratio_test(times[:n], [1.0] * n).verdict != "undecided" for n in SIZES)
    assert found / TRIALS > 0.12


@pytest.mark.parametrize("effect", [0.02, -0.02])
def test_a_difference_of_the_margin_is_called_none_at_most_one_time_in_twenty(effect):
    edge = math.copysign(math.log1p(abs(effect)), effect)
    found = answers(lambda rng, n: rng.normal(edge, 0.01, n), Looks(SIZES), margin=0.02)
    assert share(found, "no difference") < 0.05 + 4 * standard_errors(0.05)
    assert share(found, "no difference") > 0.01  # the bound is used, not only kept


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: 0.02 * rng.standard_t(3, n),
        lambda rng, n: 0.02 * rng.laplace(size=n),
        lambda rng, n: 0.01 * rng.standard_normal(n) * np.where(rng.random(n) < 0.2, 5.0, 1.0),
        lambda rng, n: 0.01 * (rng.exponential(size=n) - rng.exponential(size=n)),
    ],
    ids=["t3", "laplace", "one session in five is disturbed", "delays on both sides"],
)
def test_noise_that_is_not_normal_does_not_find_more_than_is_promised(draw):
    found = answers(draw, Looks(SIZES))
    assert share(found, "faster", "slower") < 0.05 + 4 * standard_errors(0.05)


def test_sessions_end_early_where_the_answer_is_clear_and_equality_is_found():
    same = answers(lambda rng, n: rng.normal(0, 0.005, n), Looks(SIZES), margin=0.02, trials=500)
    slower = answers(lambda rng, n: rng.normal(-0.05, 0.01, n), Looks(SIZES), margin=0.02, trials=500)
    assert share(same, "no difference") > 0.98
    assert share(slower, "slower") > 0.98


def test_one_look_needs_no_correction():
    assert Looks((5,)).nominal(0.95) == 0.95


def test_two_looks_have_the_level_of_a_bivariate_law():
    looks = Looks((100, 200))  # with many sessions t is normal, and Pocock's table says 2.178 for two equal steps
    quantile = scipy.stats.norm.ppf(0.5 + looks.nominal(0.95) / 2)
    assert looks.most == 200
    assert quantile == pytest.approx(2.178, abs=0.012)


def test_more_looks_ask_for_more_of_each():
    levels = [until(most).nominal(0.95) for most in (3, 4, 9, 20)]
    assert levels == sorted(levels)
    assert levels[0] == 0.95
    assert levels[-1] < 1 - 0.05 / 6 + 0.005  # never stricter than Bonferroni


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, (1,)), (2, (2,)), (3, (3,)), (5, (3, 4, 5)), (20, SIZES), (50, (*SIZES, 30, 50))]
)
def test_looks_end_at_the_most_that_is_allowed(most, sizes):
    assert until(most).sizes == sizes


@pytest.mark.parametrize("sizes", [(), (3, 3), (5, 4), (1, 3), (0,)])
def test_looks_that_are_none_are_refused(sizes):
    with pytest.raises(ValueError, match="wanted rising numbers of sessions, from 2 on"):
        Looks(sizes)
