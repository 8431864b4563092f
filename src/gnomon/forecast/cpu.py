"""Time of one operator on a CPU from its peaks alone: arithmetic, memory by cache level, and pages that must be mapped.

t = (t_c^p + t_m^p)^(1/p) + t_p with p = 4, the two limits adding up partly where they are near each other:
t_c = FLOP x weight / (peak x efficiency): a product feeds the vector lanes the better the larger each of its three
sizes is, and a tanh takes the time of many additions;
t_m = bytes / bandwidth, where what fits the last cache comes faster than from memory, the faster the smaller it is;
t_p = pages x cost of a fault, for outputs so large that the C library maps them anew for every call.

A calibration replaces none of this: it multiplies (`forecast.calibration`). What dispatching costs is the host model's.
"""

import math

from gnomon.devices.device import Device
from gnomon.forecast.price import Efficiencies, Efficiency, Price
from gnomon.forecast.record import Bound, Estimate
from gnomon.forecast.work import ConvolutionShape, MatmulShape, Work

# Ours, from single kernels of torch 2.13 on one core of a Cascade Lake server; the ranges span AVX2 and ARM as well.
_ANY = Efficiencies(Efficiency(0.8, 0.3, 1.0), Efficiency(0.8, 0.4, 1.2))
CPU: dict[str, Efficiencies] = {
    "matmul": Efficiencies(Efficiency(0.90, 0.55, 1.0), Efficiency(0.85, 0.45, 1.1)),
    "convolution": Efficiencies(Efficiency(0.75, 0.40, 1.0), Efficiency(0.50, 0.25, 1.0)),
    "attention": Efficiencies(Efficiency(0.45, 0.25, 0.9), Efficiency(0.60, 0.30, 1.0)),
    "gather": Efficiencies(Efficiency(0.8, 0.3, 1.0), Efficiency(0.75, 0.30, 1.2)),
}
# FLOP's worth of time at the vector peak that one counted FLOP takes (`workload.cost` counts a tanh as one): what
# polynomials of elementary functions need, and loops that compilers leave scalar. Same origin as above.
WEIGHT: dict[str, float] = {
    "exp": 40, "log": 50, "tanh": 60, "sigmoid": 85, "silu": 90, "gelu": 70, "gelu_tanh": 400, "erf": 120, "elu": 50,
    "sin": 60, "cos": 60, "softplus": 90, "mish": 150, "rsqrt": 15, "sqrt": 15, "div": 8, "pow": 8,
    "gelu_backward": 150, "gelu_tanh_backward": 500, "silu_backward": 100, "tanh_backward": 8, "sigmoid_backward": 8,
    "_softmax": 20, "_log_softmax": 30, "_safe_softmax": 80, "_softmax_backward_data": 10,
    "_log_softmax_backward_data": 20,
    "native_layer_norm": 8, "native_group_norm": 8, "native_layer_norm_backward": 8, "native_group_norm_backward": 8,
    "native_batch_norm": 4, "native_batch_norm_training": 50, "native_batch_norm_backward": 20,
    "argmax": 250, "argmin": 250, "cumsum": 150, "amax": 10, "max": 100, "min": 100, "var": 20, "std": 20,
    "var_mean": 20, "upsample_bilinear2d": 40, "upsample_bicubic2d": 40,
}  # fmt: skip
CATEGORY_WEIGHT: dict[str, float] = {"pooling": 500.0, "random": 1000.0, "sort": 300.0}
_SCATTERS = ("index_add", "scatter_add", "index_put", "index_put_impl", "embedding_dense_backward", "index_reduce")
_INDEX_S = 5e-9  # to check one index and turn it into an address
_STRIDED = 3.0  # what is read out of order takes as much more traffic: lines are used in part
CACHED = Efficiency(3.5, 2.0, 8.0)  # how much faster than memory a small working set comes
PAGE_FAULT_S = Efficiency(1.0e-6, 0.25e-6, 2.5e-6)  # mapping and zeroing one page: bare metal to virtual machines
PAGE_BYTES = 4096
MAPPED_FROM_BYTES = 32 * 2**20  # glibc maps from its largest dynamic threshold on, and unmaps at once when freed
_SMALL_CACHED = 1 / 32  # share of the last cache below which a working set has the full gain
_P = 4
_HALF_SIZE = 30.0  # rows, columns or depth with which a product reaches half of what that size allows
_ONE_ROW = 0.1  # two operations for each loaded number: what a load a cycle allows
_HALF_DEPTH, _HALF_CHANNELS = 50.0, 16.0  # the same for a convolution's products per output and its output channels
_DEPTHWISE = 0.08  # of the peak with a 3 x 3 window, by its side: few products per element, and layout is changed
_BACKWARD = 0.75  # of the forward convolution's efficiency


def price(work: Work, device: Device, page_s: Efficiency = PAGE_FAULT_S) -> Price:
    """Time of one operator, dispatch excluded. page_s: seconds that a fresh page costs.

    Raises UsageError when the device has no unit for the precision.
    """
    if work.category == "view":
        return Price(Estimate(0.0, 0.0, 0.0), "launch")
    constants = CPU.get(work.category, _ANY)
    shape = _shape_efficiency(work)
    ideal_s = (work.flop or 0.0) / _peak(work, device)
    compute_s = ideal_s * weight(work) / shape
    bandwidth, moved = device.memory_bandwidth_b_s.value, traffic_bytes(work)
    pages, indexing_s = mapped_pages(work), work.indices * _INDEX_S

    def seconds(compute: float, memory: float, cache: float, page: float) -> float:
        arithmetic = max(compute_s / compute, ideal_s)  # never faster than the peak
        warm = (moved - work.weight_bytes) / _cache_gain(moved, device, cache)  # weights were last used a step ago
        traffic = (warm + work.weight_bytes) / (bandwidth * memory)
        return float((arithmetic**_P + traffic**_P) ** (1 / _P)) + indexing_s + pages * page

    c, m = constants
    value = seconds(c.value, m.value, CACHED.value, page_s.value)
    low = seconds(c.high, m.high, CACHED.high, page_s.low)
    high = seconds(c.low, m.low, CACHED.low, page_s.high)
    if work.flop is None:
        return Price(Estimate(value, low, 10 * high), "unknown")
    bound: Bound = "compute" if compute_s / c.value >= value / 2 else "memory"
    return Price(Estimate(value, low, high), bound)


def weight(work: Work) -> float:
    """Additions' worth of time of one counted FLOP."""
    return WEIGHT.get(work.operator, CATEGORY_WEIGHT.get(work.category, 1.0))


def traffic_bytes(work: Work) -> float:
    """Compulsory traffic, and what order and place cost: lines used in part, rows read and written where they are."""
    moved = work.moved_bytes + _STRIDED * work.strided_bytes
    if work.operator in _SCATTERS and work.fresh_bytes:  # out of place: the copy is counted, the additions are not
        moved += 2 * work.item_bytes * (work.flop or 0.0)
    return moved


def mapped_pages(work: Work) -> float:
    """Pages that the operator touches first: those of an output too large for the C library to keep."""
    return work.fresh_bytes / PAGE_BYTES if work.fresh_bytes >= MAPPED_FROM_BYTES else 0.0


def _peak(work: Work, device: Device) -> float:
    if work.category in ("matmul", "convolution", "attention"):
        return device.peak(work.precision)
    return device.vector("float32" if work.precision in ("float8", "int8") else work.precision)


def _shape_efficiency(work: Work) -> float:
    """Share of a large kernel's rate that the shape of this product allows, in (0, 1]."""
    if work.matmul is not None:
        return _matmul_efficiency(work.matmul)
    if work.convolution is not None:
        share = _convolution_efficiency(work.convolution)
        return share * _BACKWARD if work.operator.endswith("backward") else share
    return 1.0


def _matmul_efficiency(shape: MatmulShape) -> float:
    """Each size s fills the lanes and hides its edges by s / (s + half); a single row has a kernel of its own."""
    m, n, k = (size / (size + _HALF_SIZE) for size in (shape.m, shape.n, shape.k))
    return (m if shape.m > 1 else _ONE_ROW) * n**0.5 * k**0.5


def _convolution_efficiency(shape: ConvolutionShape) -> float:
    if shape.groups > 1 and shape.inputs == 1:
        return min(_DEPTHWISE * math.sqrt(shape.kernel / 9), 1.0)
    depth = shape.inputs * shape.kernel
    dense = depth / (depth + _HALF_DEPTH) * shape.outputs / (shape.outputs + _HALF_CHANNELS)
    return max(dense, _DEPTHWISE / 2)


def _cache_gain(working_set_bytes: float, device: Device, most: float) -> float:
    """How much faster than memory: `most` for a small working set, 1 for one that fills the last cache, log-linear."""
    if device.cache_bytes is None or working_set_bytes <= 0:
        return 1.0
    filled = math.log(working_set_bytes / device.cache_bytes.value) / math.log(_SMALL_CACHED)
    return float(most ** min(max(filled, 0.0), 1.0))
