import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.stats import Interval
from gnomon.core.units import format_count, format_seconds
from gnomon.report import text

POSITIVE = st.floats(1e-9, 1e6)


@given(POSITIVE)
def test_a_time_never_needs_an_exponent(value):
    assert "e+" not in format_seconds(value)
    assert "e+" not in text.seconds(value)


@pytest.mark.parametrize(("value", "shown"), [(999.7e-6, "1 ms"), (0.99999, "1 s"), (0.0123, "12.3 ms"), (0, "0 ns")])
def test_the_unit_is_chosen_after_rounding(value, shown):
    assert format_seconds(value) == shown
    assert format_count(999_999, "FLOP") == "1 MFLOP"


@pytest.mark.parametrize(
    "show", [text.seconds, text.byte_count, text.flop_count, text.percent, text.times, text.number, text.shape]
)
def test_what_is_not_there_is_said_in_words(show):
    assert show(None) in (text.NOT_MEASURED, text.NOT_KNOWN)
    assert text.per_second(None, "B") == text.NOT_KNOWN
    assert str(text.interval(None)) == text.NOT_MEASURED
    assert str(text.spread([])) == text.NOT_MEASURED


def test_a_unit_that_all_share_is_said_once_and_others_are_said_each():
    assert str(text.interval(Interval(0.0123, 0.0121, 0.0126, 0.95, 5))) == "12.3 ms [12.1, 12.6]"
    assert str(text.interval(Interval(0.0012, 0.0009, 0.0016, 0.95, 5))) == "1.2 ms [900 µs, 1.6 ms]"


def test_a_single_session_has_no_interval_and_says_why():
    assert str(text.interval(Interval(2.0, None, None, 0.95, 1))) == "2 s [one session: no interval]"
    assert str(text.interval(Interval(2.0, None, None, 0.95, 7))) == "2 s [interval not known]"
    assert str(text.spread([2.0])) == "2 s [one session: no interval]"


def test_a_small_share_is_not_nothing():
    assert text.percent(1e-6) == "< 0.1 %"
    assert text.percent(0.0) == "0.0 %"
    assert text.percent(0.99999) == "100 %"


@given(st.lists(POSITIVE, min_size=2, max_size=9))
def test_a_spread_is_the_median_with_the_least_and_the_largest(values):
    kept = []
    text.spread(values, lambda value: kept.append(value) or "1 s")
    assert kept[1:] == [min(values), max(values)]
    assert sum(v <= kept[0] for v in values) * 2 >= len(values)
    assert sum(v >= kept[0] for v in values) * 2 >= len(values)


def test_a_scalar_has_a_shape_and_sizes_are_joined_by_the_sign_of_multiplication():
    assert text.shape((8, 64)) == f"8{text.TIMES}64"
    assert text.shape(()) == "()"
    assert text.shapes(((2, 3), ())) == f"2{text.TIMES}3, ()"


def test_a_fact_is_said_on_one_line_whatever_its_type():
    machine = {"cache": {"L1": 65536, "L2": None}, "isa": ["avx2", "avx512f"], "gpus": [], "load": None, "cores": 2}
    shown = {key: text.fact(value) for key, value in machine.items()}
    assert shown == {
        "cache": f"L1 65536, L2 {text.NOT_KNOWN}",
        "isa": "avx2, avx512f",
        "gpus": "none",
        "load": text.NOT_KNOWN,
        "cores": "2",
    }
