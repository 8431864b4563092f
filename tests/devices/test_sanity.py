from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.devices import catalogue
from gnomon.devices.device import Device, Quantity
from gnomon.devices.sanity import PHYSICAL, contradictions

SOUND = catalogue.get("H100-SXM")


def with_peak(table: str, precision: str, value: float) -> Device:
    return replace(SOUND, **{table: {**getattr(SOUND, table), precision: Quantity(value, "paper")}})


def told(device: Device) -> str:
    return "\n".join(f"{problem.where}: {problem.message}" for problem in contradictions(device))


@pytest.mark.parametrize("field", PHYSICAL)
@pytest.mark.parametrize("slip", [1e-9, 1e9])
def test_a_quantity_in_the_wrong_unit_is_told(field, slip):
    quantity = getattr(SOUND, field)
    wrong = replace(SOUND, **{field: Quantity(quantity.value * slip, quantity.source)})
    assert f"{field}.value: wanted" in told(wrong)


def test_a_peak_in_teraflops_is_told():
    assert "peak_flop_s.float16.value: wanted 1e+08 to 1e+18" in told(with_peak("peak_flop_s", "float16", 989.4))


@pytest.mark.parametrize(
    ("table", "precision", "value", "where"),
    [
        ("peak_flop_s", "float16", 60e12, "peak_flop_s.float16: wanted at least vector_flop_s.float32"),
        ("peak_flop_s", "tf32", 30e12, "peak_flop_s.tf32: wanted at least peak_flop_s.float32"),
        ("peak_flop_s", "float8", 900e12, "peak_flop_s.float8: wanted at least peak_flop_s.float16"),
        ("peak_flop_s", "float4", 1000e12, "peak_flop_s.float4: wanted at least peak_flop_s.float8"),
        ("vector_flop_s", "float64", 70e12, "peak_flop_s.float64: wanted at least vector_flop_s.float64"),
    ],
)
def test_a_narrow_type_is_never_slower_than_a_wide_one(table, precision, value, where):
    assert where in told(with_peak(table, precision, value))


@given(st.sampled_from(["units", "clock_hz"]), st.floats(50, 1e3) | st.floats(1e-5, 0.01))
def test_units_clock_and_rate_must_fit_together(field, factor):
    quantity = getattr(SOUND, field)
    wrong = replace(SOUND, **{field: Quantity(quantity.value * factor, quantity.source)})
    assert told(wrong) != ""


def test_a_source_that_no_number_names_is_told():
    assert "sources.memo: wanted a source that some number names" in told(
        replace(SOUND, sources={**SOUND.sources, "memo": "a note, 2024"})
    )


def test_a_device_without_float32_is_told():
    peaks = {name: quantity for name, quantity in SOUND.peak_flop_s.items() if name != "float32"}
    assert "peak_flop_s.float32: missing" in told(replace(SOUND, peak_flop_s=peaks))


def test_a_cpu_without_a_bfloat16_unit_may_be_slower_at_it():
    peaks = {"float32": Quantity(1e11, "m"), "bfloat16": Quantity(2e10, "m")}
    cpu = Device("a CPU", "Intel", "cpu", "x86_64", peaks, Quantity(2**34, "m"), Quantity(1e10, "m"), Quantity(1, "m"),
                 vector_flop_s={"float32": Quantity(1e11, "m")}, sources={"m": "measured"})  # fmt: skip
    assert contradictions(cpu) == []
    assert contradictions(replace(cpu, kind="gpu")) != []
