"""Time of attention in a window on any device: the dense kernel's forecast, less the tiles that are never touched.

t = t_dense(share of the arithmetic that the touched tiles hold) / e. The first factor is the forecaster's own class of
attention operators, with the traffic of q, k, v and the output unchanged; the share is counted exactly. e is what a
windowed kernel keeps of a dense kernel's rate, tile for tile (masks, addresses, short loops): seven published
measurements on one H100 give its middle and its range, which are taken to hold elsewhere, and for the backward pass.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gnomon.devices.device import Device
from gnomon.forecast.dtypes import captured_in
from gnomon.forecast.predictors import Gnomon, Predictor, price_all
from gnomon.forecast.price import Efficiency, Price
from gnomon.forecast.record import Bound, Estimate
from gnomon.forecast.work import Work, works
from gnomon.kernels.neighborhood_attention.published import CASES, Case
from gnomon.kernels.neighborhood_attention.tiles import TileCount
from gnomon.workload.cost import Call, Operand, cost
from gnomon.workload.graph import ITEM_BYTES, Op, OpGraph, TensorInfo

_FORWARD, _BACKWARD = "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_backward"


@dataclass(frozen=True, slots=True)
class Heads:
    """What of an attention call is not its window. Raises ValueError naming the argument."""

    heads: int
    head_dim: int
    batch: int = 1
    kv_heads: int | None = None
    dtype: str = "bfloat16"
    backward: bool = False

    def __post_init__(self) -> None:
        for name in ("heads", "head_dim", "batch", "kv_heads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"kv_heads must divide heads; got {self.kv_heads} and {self.heads}")


@dataclass(frozen=True, slots=True)
class Speedup:
    """Over the dense kernel, with its range."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Windowed:
    """A windowed kernel on a device beside the dense one. bound: what limits the windowed kernel."""

    device: str
    predictor: str
    dense: Estimate
    time: Estimate
    speedup: Speedup
    bound: Bound


def efficiency(cases: Sequence[Case] = CASES) -> Efficiency:
    """Measured speed-up over tile bound: geometric mean, least and most of the cases."""
    found = [case.efficiency for case in cases]
    return Efficiency(math.exp(math.fsum(map(math.log, found)) / len(found)), min(found), max(found))


def expected_speedup(counted: TileCount, rate: Efficiency | None = None) -> Speedup:
    """Over a dense kernel that nothing but arithmetic holds up, whatever the device."""
    rate = rate or efficiency()
    return Speedup(*(of / counted.share for of in rate))


def dense_graph(tokens: int, what: Heads) -> OpGraph:
    """Dense attention over as many tokens as a graph of one operator, or two with the backward pass."""
    kv_heads, dtype = what.kv_heads or what.heads, captured_in(what.dtype) or what.dtype
    many, few = ((what.batch, heads, tokens, what.head_dim) for heads in (what.heads, kv_heads))
    shapes = (many, few, few, many)  # q, k, v, the output
    tensors = [TensorInfo(shape, dtype, i, "activation") for i, shape in enumerate(shapes)]
    ops = [_op(_FORWARD, tensors, (0, 1, 2), (3,))]
    if what.backward:
        tensors += [TensorInfo(shape, dtype, 4 + i, "activation") for i, shape in enumerate((many, *shapes[:3]))]
        ops.append(_op(_BACKWARD, tensors, (4, 0, 1, 2, 3), (5, 6, 7)))
    return OpGraph("attention", "inference", tuple(ops), tuple(tensors), 0)


def price(counted: TileCount, what: Heads, device: Device, predictor: Predictor | None = None) -> Windowed:
    """Dense and windowed attention on a device. Raises UsageError when it cannot compute in the dtype."""
    predictor = predictor or Gnomon()
    demands = works(dense_graph(counted.tokens, what), what.dtype)
    dense = price_all(predictor, demands, device)
    fewer = price_all(predictor, [_less(work, counted.share) for work in demands], device)
    rate = efficiency()
    # nothing is faster than the pairs asked for at the peak, and the operands once through memory
    least = math.fsum(_roofline_s(work, device, 1 / counted.flop_bound) for work in demands)
    exact, whole = _sum(fewer), _sum(dense)
    time = Estimate(
        max(exact.value_s / rate.value, least),
        max(exact.value_s / _wider(exact.value_s / exact.low_s, rate.high / rate.value) / rate.value, least),
        max(exact.value_s * _wider(exact.high_s / exact.value_s, rate.value / rate.low) / rate.value, least),
    )
    # what is wrong with the device is wrong with both kernels: only the kernel's own rate is uncertain
    speedup = Speedup(*(whole.value_s / max(exact.value_s / of, least) for of in rate))
    slowest = max(fewer, key=lambda one: one.time.value_s)
    return Windowed(device.name, predictor.name, whole, time, speedup, slowest.bound)


def _op(name: str, tensors: Sequence[TensorInfo], inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Op:
    names = ("query", "key", "value") if len(inputs) == 3 else ("grad_out", "query", "key", "value", "out")
    taken, made = ([_operand(tensors[i]) for i in of] for of in (inputs, outputs))
    found = cost(Call(f"aten.{name}", dict(zip(names, taken, strict=True)), tuple(made)))
    phase = "forward" if len(inputs) == 3 else "backward"
    return Op(f"aten.{name}.default", "", "", phase, found.category, inputs, outputs, *found[1:])  # type: ignore[arg-type]


def _operand(tensor: TensorInfo) -> Operand:
    return Operand(tensor.shape, tensor.bytes, ITEM_BYTES[tensor.dtype])


def _less(work: Work, share: float) -> Work:
    return replace(work, flop=None if work.flop is None else work.flop * share)


def _roofline_s(work: Work, device: Device, share: float) -> float:
    compute_s = (work.flop or 0.0) * share / device.peak(work.precision)
    return max(compute_s, work.moved_bytes / device.memory_bandwidth_b_s.value)


def _sum(prices: Sequence[Price]) -> Estimate:
    return Estimate(*(math.fsum(getattr(p.time, end) for p in prices) for end in ("value_s", "low_s", "high_s")))


def _wider(*factors: float) -> float:
    """Two independent errors, each a factor, as one."""
    return math.exp(math.hypot(*(math.log(max(factor, 1.0)) for factor in factors)))
