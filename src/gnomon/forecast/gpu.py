"""Time of kernels on a GPU from its data sheet: roofline, achieved efficiency, waves of tiles, power limit, launch.

t = ((t_c / (e_c q s))^p + (t_m / e_m)^p)^(1/p) + t_0 with t_c = FLOP / peak, t_m = bytes / bandwidth, p = 4: near the
ridge the two limits add up partly. q is the share of the device that whole waves of tiles keep busy, s the share of its
clock that the power limit leaves. Pricing by tile and wave is NeuSight's idea (ASPLOS 2025); trying every candidate
tile, and the power limit, are ours.

The efficiencies are medians and outer quantiles over public data: NeuSight's fp32 kernels on seven GPUs and
aiconfigurator's bf16 kernels on three. Where neither has data the constant is ours and its interval wide. They are not
fitted per device: a device is only its data sheet. What is systematic in their errors is `residual.py`'s affair.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gnomon.devices.device import Device
from gnomon.forecast.kernels import Array, Kernels, Kind
from gnomon.forecast.price import Efficiencies, Efficiency

_STREAM = Efficiencies(Efficiency(0.5, 0.2, 1.0), Efficiency(0.78, 0.55, 0.92))
GPU: dict[Kind, Efficiencies] = {
    # above 1: the tile model can be too pessimistic by that much; the peak itself is never passed
    "linear": Efficiencies(Efficiency(0.92, 0.45, 1.20), Efficiency(0.65, 0.40, 0.85)),
    "bmm": Efficiencies(Efficiency(0.85, 0.40, 1.15), Efficiency(0.65, 0.40, 0.85)),
    "convolution": Efficiencies(Efficiency(0.60, 0.19, 1.0), Efficiency(0.60, 0.30, 0.85)),
    "prefill": Efficiencies(Efficiency(0.45, 0.25, 0.80), Efficiency(0.60, 0.15, 0.85)),
    "decode": Efficiencies(Efficiency(0.45, 0.20, 0.85), Efficiency(0.85, 0.25, 0.95)),
    "moe": Efficiencies(Efficiency(0.55, 0.25, 1.0), Efficiency(0.60, 0.30, 0.90)),
    "elementwise": _STREAM,
    "softmax": Efficiencies(Efficiency(0.5, 0.2, 1.0), Efficiency(0.75, 0.40, 0.92)),
    "normalization": Efficiencies(Efficiency(0.5, 0.2, 1.0), Efficiency(0.50, 0.36, 0.75)),
    "other": Efficiencies(Efficiency(0.5, 0.15, 1.0), Efficiency(0.5, 0.2, 0.85)),  # ours: no measurement behind it
}
MATRIX_KINDS = ("linear", "bmm", "convolution", "prefill", "decode", "moe")
LAUNCH_FLOOR_S = Efficiency(2.2e-6, 1.4e-6, 5e-6)  # least time of a kernel at _FLOOR_CLOCK_HZ, launch path excluded
_FLOOR_CLOCK_HZ, _FLOOR_CLOCK = 2.4e9, 0.7
_FLOORS_S: dict[Kind, Efficiency] = {  # the least time where an operator is several kernels: split keys, routing
    "prefill": Efficiency(7e-6, 4e-6, 15e-6),
    "decode": Efficiency(8e-6, 4e-6, 18e-6),
    "moe": Efficiency(20e-6, 10e-6, 40e-6),
}
# bytes per second that one unit reads at most when few threads keep few loads in flight, as decoding does
_UNIT_BANDWIDTH_B_S = 120e9
# PyTorch's softmax keeps rows of up to 1,024 columns in registers; of longer ones it reads part from memory again
_ROW_IN_REGISTERS = 1024
_REREAD = 0.4
_P = 4
TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (128, 32), (32, 128), (64, 32), (32, 32))
_TILE_OVERHEAD = 8  # a tile of a x b moves a + b operands for a b products: small tiles feed the units less well
_ATTENTION_TILE = 128  # queries of one thread block

# The power limit. Energy of one fp32 operation with everything around it at 1.4 GHz, by process; its growth with the
# clock (voltage); what memory, leakage and converters take before anything is computed. Ours: rounded from what GPUs
# with much (V100, P100) and little (T4, P4) power per peak operation sustain, and from half-precision products.
ENERGY_J = {4e-9: 3.3e-12, 7e-9: 6.7e-12, 12e-9: 13.5e-12, 16e-9: 16e-12}  # straight lines between logarithms
_ENERGY_CLOCK = 1.2
_STATIC_W, _STATIC_SHARE = 20.0, 0.12
_MATRIX_UNIT_ENERGY = {
    "tf32": 1 / 3,
    "float16": 1 / 6,
    "bfloat16": 1 / 6,
    "float8": 1 / 12,
    "int8": 1 / 12,
    "float4": 1 / 24,
}
_USUAL_PROCESS_M, _USUAL_CLOCK_HZ, _USUAL_CACHE_BYTES = 7e-9, 1.5e9, 4e6


class Physics(NamedTuple):
    """Of each kernel: seconds at the arithmetic peak and at full bandwidth, useful share of the units, time without
    launch with its range, and columns [kernels, F] that say what its shape does to the units."""

    compute_s: Array
    memory_s: Array
    occupancy: Array
    seconds: Array
    low_s: Array
    high_s: Array
    shape: Array

    @property
    def roofline_s(self) -> Array:
        return np.maximum(self.compute_s, self.memory_s)


def physics(kernels: Kernels, device: Device) -> Physics:
    """Times of kernels on a device. Raises UsageError when it has no unit for the precision."""
    constants = GPU[kernels.kind]
    compute_s = kernels["flop"] / peak(kernels.kind, kernels.precision, device)
    memory_s = kernels["moved_bytes"] / device.memory_bandwidth_b_s.value
    slowed_s = _slowed(kernels, device)
    occupancy, columns = _SHAPES[kernels.kind](kernels, device)
    share = power_share(kernels.kind, kernels.precision, device)

    def seconds(compute: float, memory: float) -> Array:
        arithmetic = np.maximum(compute_s / (compute * occupancy * share), compute_s)  # never faster than the peak
        return (arithmetic**_P + (memory_s / memory + slowed_s) ** _P) ** (1 / _P)

    c, m = constants
    times = (seconds(c.value, m.value), seconds(c.high, m.high), seconds(c.low, m.low))
    return Physics(compute_s, memory_s, occupancy, *times, np.stack(columns, axis=1))


def features(kernels: Kernels, device: Device, found: Physics) -> Array:
    """What the error of physics is learned by: [kernels, F]."""
    cache = device.cache_bytes.value if device.cache_bytes else _USUAL_CACHE_BYTES
    common = (
        np.log((found.compute_s + 1e-12) / (found.memory_s + 1e-12)),
        np.log2(np.maximum(kernels["moved_bytes"], 1) / cache),
        np.log2(found.seconds + 1e-9),
    )
    return np.concatenate([np.stack(common, axis=1), found.shape], axis=1)


def _slowed(kernels: Kernels, device: Device) -> Array:
    """Seconds of traffic beyond the least: what an algorithm reads again, and loads that too few threads ask for."""
    traffic_s = kernels["moved_bytes"] / device.memory_bandwidth_b_s.value
    if kernels.kind == "softmax":
        return np.where(kernels["columns"] > _ROW_IN_REGISTERS, _REREAD * traffic_s, 0.0)
    if kernels.kind == "decode":
        return np.asarray(kernels["moved_bytes"] / (_UNIT_BANDWIDTH_B_S * device.units.value))
    return np.zeros_like(traffic_s)


def floor_s(kind: Kind, device: Device) -> Efficiency:
    """Least seconds of an operator of this kind on a GPU, without the host: latencies that are counted in clocks."""
    clock = device.clock_hz.value if device.clock_hz else _USUAL_CLOCK_HZ
    slower = (_FLOOR_CLOCK_HZ / clock) ** _FLOOR_CLOCK
    return Efficiency(*(slower * seconds for seconds in _FLOORS_S.get(kind, LAUNCH_FLOOR_S)))


def peak(kind: Kind, precision: str, device: Device) -> float:
    """FLOP/s that kernels of this kind can reach at best. Raises UsageError when the device lacks the precision."""
    if kind in MATRIX_KINDS:
        if kind == "convolution" and precision == "float32" and "tf32" in device.peak_flop_s:
            return device.peak("tf32")  # PyTorch lets cuDNN use TF32 unless told otherwise; matmul not
        return device.peak(precision)
    return device.vector("float32" if precision in ("float8", "int8", "tf32", "float4") else precision)


def power_share(kind: Kind, precision: str, device: Device) -> float:
    """Share of its boost clock that a device holds under full arithmetic load, in (0, 1].

    Power grows with the clock as f^(1 + _ENERGY_CLOCK). A device that states no power limit is taken to hold its clock.
    """
    if device.tdp_w is None or kind not in MATRIX_KINDS:
        return 1.0
    process = device.process_m.value if device.process_m else _USUAL_PROCESS_M
    clock = device.clock_hz.value if device.clock_hz else _USUAL_CLOCK_HZ
    at = np.interp(math.log(process), np.log(list(ENERGY_J)), np.log(list(ENERGY_J.values())))
    energy = math.exp(at) * (clock / 1.4e9) ** _ENERGY_CLOCK
    energy *= _MATRIX_UNIT_ENERGY.get(precision, 1.0)
    wanted_w = energy * peak(kind, precision, device)
    limit_w = device.tdp_w.value
    static_w = min(_STATIC_W + _STATIC_SHARE * limit_w, 0.5 * limit_w)
    return min(1.0, ((limit_w - static_w) / wanted_w) ** (1 / (1 + _ENERGY_CLOCK)))


# What the shape of a kernel does to the device: (useful share of its units, feature columns) --------------------------

_Shape = tuple[Array, list[Array]]


def _product(kernels: Kernels, device: Device) -> _Shape:
    """A product is cut into tiles that run in waves over the units; a last wave half empty is half wasted."""
    batch, m, n, k = (kernels[name] for name in ("batch", "m", "n", "k"))
    units = device.units.value
    best = np.zeros_like(m)
    columns = []
    for rows, cols in TILES:
        waves = batch * np.ceil(m / rows) * np.ceil(n / cols) / units
        useful = batch * m * n / (np.ceil(waves) * units * rows * cols)
        feed = (rows * cols / (rows + cols)) / (rows * cols / (rows + cols) + _TILE_OVERHEAD)
        best = np.maximum(best, useful * feed)
        columns += [np.log2(waves), useful]
    # a grid smaller than the device is split along k by today's libraries, at most as far as k reaches
    small = batch * np.ceil(m / 64) * np.ceil(n / 64) < units
    best = np.where(small, np.minimum(1.0, best * np.clip(k / 512, 1.0, 4.0)), best)
    columns += [np.log2(batch), np.log2(m), np.log2(n), np.log2(k), np.log2(m / n), np.log2(batch * m * n / units)]
    columns += [_alignment(size) for size in (m, n, k)]
    return best, columns


def _rows(kernels: Kernels, device: Device) -> _Shape:
    rows, columns = kernels["rows"], kernels["columns"]
    shape = [np.log2(rows), np.log2(columns), np.log2(rows / device.units.value), _alignment(columns)]
    if kernels.kind == "softmax":
        shape.append((columns <= _ROW_IN_REGISTERS).astype(float))
    return np.ones_like(rows), shape


def _stream(kernels: Kernels, device: Device) -> _Shape:
    moved = np.maximum(kernels["moved_bytes"], 1.0)
    flop = kernels["flop"]
    return np.ones_like(flop), [np.log2(moved / device.units.value), np.log2((flop + 1) / moved)]


def _attention(kernels: Kernels, device: Device) -> _Shape:
    """One thread block takes some queries of one head; heads that share keys read them once from memory."""
    batch, heads, kv_heads = kernels["batch"], kernels["heads"], kernels["kv_heads"]
    blocks = batch * heads * np.ceil(kernels["queries"] / _ATTENTION_TILE) / device.units.value
    seen = np.where(kernels["window"] > 0, np.minimum(kernels["window"], kernels["keys"]), kernels["keys"])
    useful = np.where(blocks < 1, np.sqrt(blocks), blocks / np.ceil(blocks))  # few blocks: keys are split instead
    columns = [
        np.log2(blocks), blocks / np.ceil(blocks), np.log2(batch), np.log2(heads), np.log2(heads / kv_heads),
        np.log2(kernels["queries"]), np.log2(seen), kernels["head_size"], kernels["causal"],
        (kernels["window"] > 0).astype(float), kernels["kv_bytes"], np.log2(batch * kv_heads / device.units.value),
        kernels["library"], np.log2(kernels["item_bytes"]),
    ]  # fmt: skip
    return useful if kernels.kind == "prefill" else np.ones_like(batch), columns


def _experts(kernels: Kernels, device: Device) -> _Shape:
    rows = kernels["tokens"] * kernels["chosen"] / kernels["experts"]
    columns = [np.log2(kernels[name]) for name in ("tokens", "hidden", "inner", "experts", "chosen")]
    tiles = np.ceil(np.maximum(rows, 1) / 64)
    useful = np.minimum(1.0, np.maximum(rows, 1) / (64 * tiles))
    return useful, [*columns, np.log2(rows), useful, kernels["library"], np.log2(kernels["item_bytes"])]


def _alignment(size: Array) -> Array:
    """The power of two, up to 32, that divides a size: unaligned rows cannot be loaded in wide words."""
    found = np.zeros_like(size)
    for power in range(1, 6):
        found = np.where(size % 2**power == 0, power, found)
    return found


def _plain(kernels: Kernels, device: Device) -> _Shape:
    return np.ones_like(kernels["flop"]), [np.log2(np.maximum(kernels["flop"], 1.0))]


_SHAPES: dict[Kind, Callable[[Kernels, Device], _Shape]] = {
    "linear": _product,
    "bmm": _product,
    "softmax": _rows,
    "normalization": _rows,
    "elementwise": _stream,
    "prefill": _attention,
    "decode": _attention,
    "moe": _experts,
    "convolution": _plain,
    "other": _plain,
}
