"""Time of one operator from a device's data sheet alone: roofline, achieved efficiency, waves of tiles, launch floor.

t = ((t_c / (e_c q))^p + (t_m / e_m)^p)^(1/p) + t_0 with t_c = FLOP / peak, t_m = bytes / bandwidth, p = 4: near the
ridge the two limits add up partly. q is the share of the device that whole waves of tiles keep busy; the idea of
pricing by tile and wave is NeuSight's (ASPLOS 2025), trying every candidate tile and taking the best is ours.

The efficiencies are medians and outer quantiles over public data (`benchmarks/physics_constants.py` prints them):
NeuSight's fp32 kernels on seven GPUs and aiconfigurator's bf16 kernels on three. Where neither has data the
constant is ours and its interval wide. They are not fitted per device: a device is only its data sheet.
"""

import math
from typing import NamedTuple

from gnomon.devices.device import Device
from gnomon.forecast.record import Bound, Estimate
from gnomon.forecast.work import MatmulShape, Work


class Efficiency(NamedTuple):
    """Share of a peak that kernels reach: what to expect, and the range that nine in ten lie in."""

    value: float
    low: float
    high: float


class Constants(NamedTuple):
    """Efficiencies of a category: of the arithmetic peak, of the memory bandwidth."""

    compute: Efficiency
    memory: Efficiency


_ANY = Constants(Efficiency(0.5, 0.15, 1.0), Efficiency(0.5, 0.2, 0.85))  # ours: no measurement behind it
_STREAM = Constants(Efficiency(0.5, 0.2, 1.0), Efficiency(0.75, 0.50, 0.90))
GPU: dict[str, Constants] = {
    # above 1: the tile model can be too pessimistic by that much; the peak itself is never passed
    "matmul": Constants(Efficiency(0.85, 0.40, 1.15), Efficiency(0.65, 0.40, 0.85)),
    "convolution": Constants(Efficiency(0.60, 0.19, 1.0), Efficiency(0.60, 0.30, 0.85)),
    "attention": Constants(Efficiency(0.45, 0.29, 0.75), Efficiency(0.45, 0.15, 0.85)),
    "elementwise": _STREAM,
    "copy": _STREAM,
    "optimizer": _STREAM,
    "softmax": Constants(Efficiency(0.5, 0.2, 1.0), Efficiency(0.55, 0.28, 0.75)),
    "normalization": Constants(Efficiency(0.5, 0.2, 1.0), Efficiency(0.50, 0.36, 0.75)),
}
CPU: dict[str, Constants] = {
    "matmul": Constants(Efficiency(0.80, 0.40, 1.0), Efficiency(0.85, 0.40, 1.0)),
    "convolution": Constants(Efficiency(0.60, 0.25, 1.0), Efficiency(0.60, 0.30, 1.0)),
    "attention": Constants(Efficiency(0.45, 0.20, 0.9), Efficiency(0.60, 0.30, 1.0)),
}
LAUNCH_FLOOR_S = Efficiency(2.5e-6, 1.5e-6, 6e-6)  # least time of a kernel on a GPU, launch path excluded
CACHED = Efficiency(3.0, 1.0, 8.0)  # ours: how much faster than from memory a CPU reads what its last cache holds
_P = 4
_TILES = ((256, 128), (128, 128), (128, 64), (64, 64), (64, 32), (32, 32))
_TILE_OVERHEAD = 8  # a tile of a x b moves a + b operands for a b products: small tiles feed the units less well


class Price(NamedTuple):
    """seconds on the device with its range, what bounds it, and the share by which waves and padding slow it."""

    time: Estimate
    bound: Bound
    occupancy: float


def price(work: Work, device: Device) -> Price:
    """Device time of one operator. A view costs nothing here; dispatching it is the host model's affair.

    Raises UsageError when the device has no unit for the operator's precision.
    """
    if work.category == "view":
        return Price(Estimate(0.0, 0.0, 0.0), "launch", 1.0)
    constants = (CPU if device.kind == "cpu" else GPU).get(work.category, _ANY)
    occupancy = _occupancy(work.matmul, device)
    compute_s = (work.flop or 0.0) / _peak(work, device)
    memory_s = work.moved_bytes / device.memory_bandwidth_b_s.value
    cached = _is_cached(work, device)
    floor = Efficiency(0.0, 0.0, 0.0) if device.kind == "cpu" else LAUNCH_FLOOR_S

    def seconds(compute: float, memory: float, cache: float, start: float) -> float:
        memory = memory * cache if cached else memory
        arithmetic = max(compute_s / (compute * occupancy), compute_s)  # never faster than the peak
        traffic = memory_s / memory
        return float((arithmetic**_P + traffic**_P) ** (1 / _P)) + start

    c, m = constants
    value = seconds(c.value, m.value, CACHED.value, floor.value)
    low = seconds(c.high, m.high, CACHED.high, floor.low)
    high = seconds(c.low, m.low, CACHED.low, floor.high)
    if work.flop is None:
        return Price(Estimate(value, low, 10 * high), "unknown", occupancy)
    if value < 2 * floor.value:
        bound: Bound = "launch"
    else:
        traffic_s = memory_s / (m.value * (CACHED.value if cached else 1.0))
        bound = "compute" if compute_s / (c.value * occupancy) >= traffic_s else "memory"
    return Price(Estimate(value, low, high), bound, occupancy)


def spread(time: Estimate) -> float:
    """Standard deviation of the logarithm of a time whose range holds nine in ten."""
    if time.value_s <= 0 or time.low_s <= 0:
        return 0.0
    return math.log(time.high_s / time.low_s) / (2 * 1.645)


def _peak(work: Work, device: Device) -> float:
    if work.category in ("matmul", "convolution", "attention"):
        if work.category == "convolution" and work.precision == "float32" and "tf32" in device.peak_flop_s:
            return device.peak("tf32")  # PyTorch lets cuDNN use TF32 unless told otherwise; matmul not
        return device.peak(work.precision)
    return device.vector("float32" if work.precision in ("float8", "int8") else work.precision)


def _is_cached(work: Work, device: Device) -> bool:
    cache = device.cache_bytes
    return device.kind == "cpu" and cache is not None and work.moved_bytes < cache.value / 2


def _occupancy(shape: MatmulShape | None, device: Device) -> float:
    """Share of the device's arithmetic that a matrix product keeps useful under its best tile, in (0, 1]."""
    if shape is None or device.kind == "cpu":
        return 1.0
    units, best = device.units.value, 0.0
    for a, b in _TILES:
        for rows, columns in {(a, b), (b, a)}:
            tiles = shape.batch * math.ceil(shape.m / rows) * math.ceil(shape.n / columns)
            capacity = math.ceil(tiles / units) * units * rows * columns
            feed = (a * b / (a + b)) / (a * b / (a + b) + _TILE_OVERHEAD)
            best = max(best, shape.batch * shape.m * shape.n / capacity * feed)
    # a grid smaller than the device is split along k by today's libraries, at most as far as k reaches
    if shape.batch * math.ceil(shape.m / 64) * math.ceil(shape.n / 64) < units:
        best = min(1.0, best * min(max(1.0, shape.k / 512), 4.0))
    return best
