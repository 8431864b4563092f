"""Time of one operator on a CPU from its peaks: roofline, achieved efficiency, and what the last cache holds."""

from typing import NamedTuple

from gnomon.devices.device import Device
from gnomon.forecast.price import Efficiency, Price
from gnomon.forecast.record import Bound, Estimate
from gnomon.forecast.work import Work


class Constants(NamedTuple):
    """Efficiencies of a category: of the arithmetic peak, of the memory bandwidth."""

    compute: Efficiency
    memory: Efficiency


_ANY = Constants(Efficiency(0.5, 0.15, 1.0), Efficiency(0.5, 0.2, 0.85))  # ours: no measurement behind it
CPU: dict[str, Constants] = {
    "matmul": Constants(Efficiency(0.80, 0.40, 1.0), Efficiency(0.85, 0.40, 1.0)),
    "convolution": Constants(Efficiency(0.60, 0.25, 1.0), Efficiency(0.60, 0.30, 1.0)),
    "attention": Constants(Efficiency(0.45, 0.20, 0.9), Efficiency(0.60, 0.30, 1.0)),
}
CACHED = Efficiency(3.0, 1.0, 8.0)  # ours: how much faster than from memory a CPU reads what its last cache holds
_P = 4


def price(work: Work, device: Device) -> Price:
    """Time of one operator, dispatch excluded. Raises UsageError when the device has no unit for the precision."""
    if work.category == "view":
        return Price(Estimate(0.0, 0.0, 0.0), "launch")
    constants = CPU.get(work.category, _ANY)
    compute_s = (work.flop or 0.0) / _peak(work, device)
    memory_s = work.moved_bytes / device.memory_bandwidth_b_s.value
    cached = _is_cached(work, device)

    def seconds(compute: float, memory: float, cache: float) -> float:
        arithmetic = max(compute_s / compute, compute_s)  # never faster than the peak
        traffic = memory_s / (memory * cache if cached else memory)
        return float((arithmetic**_P + traffic**_P) ** (1 / _P))

    c, m = constants
    value = seconds(c.value, m.value, CACHED.value)
    low = seconds(c.high, m.high, CACHED.high)
    high = seconds(c.low, m.low, CACHED.low)
    if work.flop is None:
        return Price(Estimate(value, low, 10 * high), "unknown")
    traffic_s = memory_s / (m.value * (CACHED.value if cached else 1.0))
    bound: Bound = "compute" if compute_s / c.value >= traffic_s else "memory"
    return Price(Estimate(value, low, high), bound)


def _peak(work: Work, device: Device) -> float:
    if work.category in ("matmul", "convolution", "attention"):
        return device.peak(work.precision)
    return device.vector("float32" if work.precision in ("float8", "int8") else work.precision)


def _is_cached(work: Work, device: Device) -> bool:
    cache = device.cache_bytes
    return cache is not None and work.moved_bytes < cache.value / 2
