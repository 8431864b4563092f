"""Time of one operator on a GPU from its data sheet alone: roofline, achieved efficiency, waves of tiles, launch floor.

t = ((t_c / (e_c q))^p + (t_m / e_m)^p)^(1/p) + t_0 with t_c = FLOP / peak, t_m = bytes / bandwidth, p = 4: near the
ridge the two limits add up partly. q is the share of the device that whole waves of tiles keep busy; the idea of
pricing by tile and wave is NeuSight's (ASPLOS 2025), trying every candidate tile and taking the best is ours.

The efficiencies are medians and outer quantiles over public data:
NeuSight's fp32 kernels on seven GPUs and aiconfigurator's bf16 kernels on three. Where neither has data the
constant is ours and its interval wide. They are not fitted per device: a device is only its data sheet.
"""

import math
from typing import NamedTuple

from gnomon.devices.device import Device
from gnomon.forecast.price import Efficiency, Price
from gnomon.forecast.record import Bound, Estimate
from gnomon.forecast.work import MatmulShape, Work


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
LAUNCH_FLOOR_S = Efficiency(2.5e-6, 1.5e-6, 6e-6)  # least time of a kernel on a GPU, launch path excluded
_P = 4
_TILES = ((256, 128), (128, 128), (128, 64), (64, 64), (64, 32), (32, 32))
_TILE_OVERHEAD = 8  # a tile of a x b moves a + b operands for a b products: small tiles feed the units less well


def price(work: Work, device: Device) -> Price:
    """Device time of one operator. A view costs nothing here; dispatching it is the host model's affair.

    Raises UsageError when the device has no unit for the operator's precision.
    """
    if work.category == "view":
        return Price(Estimate(0.0, 0.0, 0.0), "launch", 1.0)
    constants = GPU.get(work.category, _ANY)
    occupancy = _occupancy(work.matmul, device)
    compute_s = (work.flop or 0.0) / _peak(work, device)
    memory_s = work.moved_bytes / device.memory_bandwidth_b_s.value

    def seconds(compute: float, memory: float, start: float) -> float:
        arithmetic = max(compute_s / (compute * occupancy), compute_s)  # never faster than the peak
        traffic = memory_s / memory
        return float((arithmetic**_P + traffic**_P) ** (1 / _P)) + start

    c, m = constants
    value = seconds(c.value, m.value, LAUNCH_FLOOR_S.value)
    low = seconds(c.high, m.high, LAUNCH_FLOOR_S.low)
    high = seconds(c.low, m.low, LAUNCH_FLOOR_S.high)
    if work.flop is None:
        return Price(Estimate(value, low, 10 * high), "unknown", occupancy)
    if value < 2 * LAUNCH_FLOOR_S.value:
        bound: Bound = "launch"
    else:
        bound = "compute" if compute_s / (c.value * occupancy) >= memory_s / m.value else "memory"
    return Price(Estimate(value, low, high), bound, occupancy)


def _peak(work: Work, device: Device) -> float:
    if work.category in ("matmul", "convolution", "attention"):
        if work.category == "convolution" and work.precision == "float32" and "tf32" in device.peak_flop_s:
            return device.peak("tf32")  # PyTorch lets cuDNN use TF32 unless told otherwise; matmul not
        return device.peak(work.precision)
    return device.vector("float32" if work.precision in ("float8", "int8") else work.precision)


def _occupancy(shape: MatmulShape | None, device: Device) -> float:
    """Share of the device's arithmetic that a matrix product keeps useful under its best tile, in (0, 1]."""
    if shape is None:
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
