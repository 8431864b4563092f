import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.measure.analyses.roofline import TOLERANCE, Roof, place

AMOUNT = st.floats(1e-3, 1e15)


@given(flop=AMOUNT, moved=AMOUNT, peak=AMOUNT, bandwidth=AMOUNT, slack=st.floats(1, 100))
def test_work_is_memory_bound_iff_its_intensity_is_below_the_ridge_and_nothing_passes_the_roof(
    flop, moved, peak, bandwidth, slack
):
    roof = Roof(peak, bandwidth)
    least, limit = roof.least(flop, moved)
    found = place(flop, moved, least * slack, roof)
    intensity = flop / moved
    if not math.isclose(intensity, roof.ridge, rel_tol=1e-9):
        assert (limit == "memory") == (intensity < roof.ridge)
    assert found.roof_flop_s == pytest.approx(min(peak, intensity * bandwidth))
    assert found.attained_flop_s <= found.roof_flop_s * 1.0001
    assert found.share == pytest.approx(1 / slack)
    assert found.flag is None


@given(flop=AMOUNT, moved=AMOUNT, faster=st.floats(1.01 * TOLERANCE, 100))
def test_what_is_faster_than_the_roof_flags_the_roof_and_not_the_work(flop, moved, faster):
    roof = Roof(1e9, 1e8)
    least, limit = roof.least(flop, moved)
    flag = place(flop, moved, least / faster, roof).flag
    assert ("the device's peak is too low" if limit == "compute" else "read from cache") in flag


def test_within_five_per_cent_of_the_roof_nothing_is_flagged():
    assert place(1e9, 1.0, 1 / 1.04, Roof(1e9, 1e9)).flag is None
    assert place(1e9, 1.0, 1 / 1.06, Roof(1e9, 1e9)).flag is not None


def test_what_is_not_known_of_work_stays_unknown():
    found = place(None, 10.0, 2.0, Roof(1.0, 1.0))
    assert (found.intensity, found.attained_flop_s, found.attained_b_s, found.share) == (None, None, 5.0, None)
    assert found.limited_by == "unknown"
    assert place(1.0, 1.0, 0.0, Roof(1.0, 1.0)).attained_flop_s is None  # no time, no rate
    assert place(1.0, 1.0, 1.0, None).least_s is None
    assert Roof(None, 1.0).ridge is None
