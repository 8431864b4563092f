import pytest

from gnomon.core.errors import UsageError
from gnomon.core.records import StructureError, from_json, structure, to_json
from gnomon.devices import catalogue
from gnomon.devices.device import Device, Quantity

ONE = Quantity(1.0, "s")


def device(**peaks) -> Device:
    table = {key: Quantity(value, "s") for key, value in peaks.items()}
    return Device("d", "v", "gpu", "a", table, ONE, ONE, ONE, sources={"s": "made up"})


def test_a_missing_peak_is_named_with_those_there_are():
    with pytest.raises(UsageError, match="d has no float8 peak; it has float32, float16"):
        device(float32=1.0, float16=2.0).peak("float8")


def test_double_precision_is_never_taken_for_single():
    assert device(float32=2.0, float64=1.0).vector("float64") == 1.0


def test_lanes_without_a_rate_of_their_own_run_at_single_precision():
    assert device(float32=2.0).vector("bfloat16") == 2.0


def test_a_device_without_any_rate_says_what_to_add():
    with pytest.raises(UsageError, match=r"add vector_flop_s\.float32"):
        device(int8=1.0).vector("float32")


def test_a_quantity_is_positive():
    with pytest.raises(StructureError, match="wanted a positive number, got 0"):
        structure(Quantity, {"value": 0, "source": "s"})


@pytest.mark.parametrize("name", catalogue.names())
def test_every_device_survives_json(name):
    one = catalogue.get(name)
    assert from_json(to_json(one), Device) == one
