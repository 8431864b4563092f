import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.units import format_bytes, format_count, format_seconds, parse_bytes, parse_seconds, scaled

UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
BINARY = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
DECIMAL = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


@pytest.mark.parametrize(
    ("text", "count"),
    [("300", 300), ("5B", 5), ("16GiB", 16 * 2**30), (" 1.5 GB ", 1_500_000_000), ("5k", 5000), ("5 KB", 5000),
     ("2Ki", 2048), ("1e3MB", 10**9), ("3TiB", 3 * 2**40), ("1EB", 10**18), ("0", 0)],
)  # fmt: skip
def test_amounts_of_memory_are_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5 b", "5 kiB", "5 XB", "1,5GB", "٣GB", "5GBs", "0x10", "nan"])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(ValueError, match=f"such as '16GiB' or '512MB'; got {re.escape(repr(text))}"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["1e400", "1e300 PB", "8EiB"])
def test_more_memory_than_there_can_be_is_refused(text):
    with pytest.raises(ValueError, match="no memory has"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("2m", 120.0), ("2min", 120.0), (" 250 ms", 0.25), ("1h", 3600.0), ("1.5e1s", 15.0), ("5ns", 5e-9),
     ("3us", 3e-6), ("3\u00b5s", 3e-6), ("3\u03bcs", 3e-6)],
)  # fmt: skip
def test_times_are_read(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 sec", "1:30", "5 S", "inf"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=f"such as '2m', '30s' or '250ms'; got {re.escape(repr(text))}"):
        parse_seconds(text)


def test_a_time_without_end_is_refused():
    with pytest.raises(ValueError, match="no time is as long as '1e400s'"):
        parse_seconds("1e400s")


@given(seconds=st.floats(1e-9, 1e9))
def test_a_printed_time_is_the_time_to_three_digits_in_a_unit_that_fits(seconds):
    number, unit = format_seconds(seconds).split()
    assert float(number) * UNITS[unit] == pytest.approx(seconds, rel=5.001e-3)
    assert float(number) < 1000 or unit == "s"
    assert float(number) >= 1 or unit == "ns"
    assert "e" not in number


@given(count=st.floats(0, 2**65))
def test_a_printed_amount_is_the_amount_to_four_digits_in_a_unit_that_fits(count):
    number, unit = format_bytes(count).split()
    assert float(number) * BINARY[unit] == pytest.approx(count, rel=5.001e-4, abs=0.5)
    assert float(number) < 1024 or unit in ("B", "EiB")
    assert float(number) >= 1 or unit == "B"


@given(count=st.floats(1, 9.9e20))
def test_a_printed_count_is_the_count_to_three_digits_with_a_prefix_that_fits(count):
    number, unit = format_count(count, "FLOP").split()
    assert float(number) * DECIMAL[unit.removesuffix("FLOP")] == pytest.approx(count, rel=5.001e-3)
    assert 1 <= float(number) < 1000
    assert "e" not in number


@given(count=st.floats(-1e20, 1e20))
def test_scaling_changes_the_prefix_and_not_the_value(count):
    value, prefix = scaled(count)
    assert value * DECIMAL[prefix] == pytest.approx(count)
    assert abs(value) >= 1 or prefix == ""


@given(count=st.integers(0, 2**62))
def test_an_exact_amount_is_read_back(count):
    assert parse_bytes(f"{count}") == pytest.approx(count, rel=1e-15)
    rounding = 5.001e-4 * count + 0.5  # four digits, then a whole number of bytes
    assert parse_bytes(format_bytes(count).replace("iB", "i")) == pytest.approx(count, rel=0, abs=rounding)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (format_seconds(0.00123), "1.23 ms"), (format_seconds(0), "0 ns"), (format_seconds(-5e-3), "-5 ms"),
        (format_seconds(0.0009999), "1 ms"), (format_seconds(100_000.4), "100000 s"),
        (format_seconds(math.inf), "inf s"),
        (format_bytes(1.5 * 2**30), "1.5 GiB"), (format_bytes(1023), "1023 B"), (format_bytes(2**20 - 1), "1 MiB"),
        (format_bytes(-2048), "-2 KiB"), (format_bytes(0), "0 B"),
        (format_count(2.5e12, "FLOP"), "2.5 TFLOP"), (format_count(999_999), "1 M"),
        (format_count(1.2e18, "FLOP"), "1.2 EFLOP"),
        (format_count(12), "12"), (format_count(-3e6, "B"), "-3 MB"),
    ],
)  # fmt: skip
def test_quantities_are_printed_as_people_write_them(printed, expected):
    assert printed == expected
