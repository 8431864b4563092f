"""What must hold between the numbers of one device, whoever wrote the file: units slip by 1000, columns get swapped."""

from collections.abc import Iterator
from typing import NamedTuple, get_args

from gnomon.core.errors import did_you_mean
from gnomon.core.records import Problem
from gnomon.devices.device import Device, Precision, Quantity

PRECISIONS: tuple[str, ...] = get_args(Precision)


class Range(NamedTuple):
    low: float
    high: float
    unit: str


# from the smallest board computer to a rack-sized package; outside of it a prefix is wrong
PHYSICAL = {
    "memory_bytes": Range(1e8, 1e14, "bytes"),
    "memory_bandwidth_b_s": Range(1e9, 1e14, "bytes per second"),
    "units": Range(1, 1e5, "units"),
    "clock_hz": Range(1e8, 1e10, "hertz"),
    "cache_bytes": Range(1e4, 1e11, "bytes"),
    "link_b_s": Range(1e8, 1e14, "bytes per second, one direction"),
    "pcie_b_s": Range(1e8, 1e14, "bytes per second, one direction"),
    "network_b_s": Range(1e7, 1e14, "bytes per second, one direction"),
    "node_size": Range(1, 1e4, "devices"),
    "tdp_w": Range(1, 1e4, "watts"),
    "process_m": Range(5e-10, 1e-6, "metres"),
}
PEAK = Range(1e8, 1e18, "operations per second")

# a matrix unit is never slower at the narrower type; int8 is left out, new chips give it up
_ORDER = (("float32", "tf32"), ("tf32", "float16"), ("float16", "float8"), ("bfloat16", "float8"), ("float8", "float4"))
_ROUNDING = 0.97  # data sheets round to two digits


def contradictions(device: Device) -> list[Problem]:
    """Everything about `device` that cannot be: unknown keys and sources, impossible sizes, peaks out of order."""
    return [*_keys(device), *_sizes(device), *_peaks(device)]


def _quantities(device: Device) -> Iterator[tuple[tuple[str | int, ...], Quantity]]:
    for field in PHYSICAL:
        quantity = getattr(device, field)
        if quantity is not None:
            yield (field,), quantity
    for table in ("peak_flop_s", "vector_flop_s"):
        for precision, quantity in getattr(device, table).items():
            yield (table, precision), quantity


def _keys(device: Device) -> Iterator[Problem]:
    for table in ("peak_flop_s", "vector_flop_s"):
        for name in getattr(device, table):
            if name not in PRECISIONS:
                near = did_you_mean(name, PRECISIONS)
                yield Problem((table, name), f"wanted one of {', '.join(PRECISIONS)}, got {name!r}.{near}")
    used = set()
    for path, quantity in _quantities(device):
        used.add(quantity.source)
        if quantity.source not in device.sources:
            near = did_you_mean(quantity.source, device.sources)
            known = ", ".join(device.sources) or "none"
            message = f"wanted a key of `sources` ({known}), got {quantity.source!r}.{near}"
            yield Problem((*path, "source"), message)
    for name in device.sources:
        if name not in used:
            yield Problem(
                ("sources", name), "wanted a source that some number names, got one that none does; remove it"
            )
    if "float32" not in device.peak_flop_s:
        yield Problem(("peak_flop_s", "float32"), "missing; wanted a quantity, every device has a float32 rate")


def _sizes(device: Device) -> Iterator[Problem]:
    for path, quantity in _quantities(device):
        allowed = PHYSICAL.get(str(path[0]), PEAK)
        if not allowed.low <= quantity.value <= allowed.high:
            message = (
                f"wanted {allowed.low:g} to {allowed.high:g} {allowed.unit}, got {quantity.value:g}; is a prefix off?"
            )
            yield Problem((*path, "value"), message)


def _peaks(device: Device) -> Iterator[Problem]:
    if device.kind != "gpu":  # a measured CPU can be slower at bfloat16 than at float32, when it has no unit for it
        return
    peaks = {name: quantity.value for name, quantity in device.peak_flop_s.items()}
    lanes = {name: quantity.value for name, quantity in device.vector_flop_s.items()}
    for name, value in lanes.items():
        if name in peaks and peaks[name] < _ROUNDING * value:
            message = f"wanted at least vector_flop_s.{name} ({value:g}), got {peaks[name]:g}; the fastest unit counts"
            yield Problem(("peak_flop_s", name), message)
    for name in ("tf32", "float16", "bfloat16"):
        if name in peaks and "float32" in lanes and peaks[name] < _ROUNDING * lanes["float32"]:
            message = f"wanted at least vector_flop_s.float32 ({lanes['float32']:g}), got {peaks[name]:g}"
            yield Problem(("peak_flop_s", name), message)
    for wide, narrow in _ORDER:
        if wide in peaks and narrow in peaks and peaks[narrow] < _ROUNDING * peaks[wide]:
            message = f"wanted at least peak_flop_s.{wide} ({peaks[wide]:g}), got {peaks[narrow]:g}"
            yield Problem(("peak_flop_s", narrow), message)
    if "float32" in peaks and device.clock_hz is not None:
        per_clock = (lanes.get("float32") or peaks["float32"]) / (device.units.value * device.clock_hz.value)
        if not 8 <= per_clock <= 4096:
            message = (
                f"wanted 8 to 4096 float32 operations per unit and clock, got {per_clock:g}; "
                "one of the float32 rate, units and clock_hz is off"
            )
            yield Problem(("units",), message)
