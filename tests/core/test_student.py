import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.student import chi_square_quantile, detectable_errors, t_quantile, two_sided_p


@given(p=st.floats(1e-9, 1 - 1e-9), df=st.integers(1, 60) | st.sampled_from([500, 1000, 1001, 5000, 10**6]))
def test_t_quantiles_are_those_of_scipy(p, df):
    assert t_quantile(p, df) == pytest.approx(scipy.stats.t.ppf(p, df), rel=1e-7, abs=1e-9)


def test_the_middle_of_students_t_is_zero():
    assert t_quantile(0.5, 3) == 0.0


@pytest.mark.parametrize(("p", "df"), [(0.0, 3), (1.0, 3), (float("nan"), 3), (0.9, 0)])
def test_a_quantile_that_there_is_not_is_refused(p, df):
    with pytest.raises(ValueError, match="wanted 0 < p < 1 and df >= 1"):
        t_quantile(p, df)


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30, 200])
@pytest.mark.parametrize("level", [0.9, 0.99])
def test_the_detectable_shift_is_that_of_the_noncentral_t(freedom, level):
    quantile = scipy.stats.t.ppf(0.5 + level / 2, freedom)
    power = scipy.stats.nct.sf(quantile, freedom, detectable_errors(freedom, level))
    assert power == pytest.approx(0.8, abs=1e-4)


@given(t=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), freedom=st.integers(1, 60))
def test_two_sided_tails_are_those_of_scipy(t, freedom):
    expected = 2 * scipy.stats.t.sf(np.abs(t), freedom)
    assert two_sided_p(np.array(t), freedom) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(p=st.floats(1e-6, 1 - 1e-6), df=st.integers(1, 200))
def test_chi_square_quantiles_are_those_of_scipy(p, df):
    assert chi_square_quantile(p, df) == pytest.approx(scipy.stats.chi2.ppf(p, df), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("p", "df"), [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_a_chi_square_quantile_that_there_is_not_is_refused(p, df):
    with pytest.raises(ValueError, match="wanted 0 < p < 1 and df >= 1"):
        chi_square_quantile(p, df)
