"""Pooling, interpolation, sorting."""

import math
from collections.abc import Mapping

from gnomon.workload.cost.call import Call, Cost, traffic, written_bytes

# FLOP per element
INTERPOLATE: Mapping[str, int] = {"nearest": 0, "linear": 3, "bilinear": 8, "bicubic": 40, "trilinear": 18}


def _window(call: Call) -> int:
    kernel = call.number("kernel_size") or [1]
    sizes = [kernel] if isinstance(kernel, int) else list(kernel)
    rank = 1 if "1d" in call.name else 3 if "3d" in call.name else 2
    return math.prod(sizes * rank if len(sizes) == 1 else sizes)


def pool(call: Call) -> Cost:
    return Cost("pooling", float(call.size * _window(call)), *traffic(call))


def adaptive_pool(call: Call) -> Cost:
    return Cost("pooling", float(call.inputs[0].elements), *traffic(call))


def max_pool_backward(call: Call) -> Cost:
    """Adds each gradient at the place that won: reads gradients and indices, not the input."""
    gradient, places = call.operand("grad_output"), call.operand("indices")
    return Cost("pooling", float(gradient.elements), float(gradient.bytes + places.bytes), written_bytes(call))


def average_pool_backward(call: Call) -> Cost:
    """Spreads each gradient over its window; only the shape of the input is needed."""
    gradient = call.operand("grad_output")
    spread = float(gradient.elements * _window(call)) if "kernel_size" in call.arguments else float(call.size)
    return Cost("pooling", spread, float(gradient.bytes), written_bytes(call))


def interpolate(call: Call) -> Cost:
    kind = next(kind for kind in sorted(INTERPOLATE, key=len, reverse=True) if kind in call.name)
    return Cost("pooling", float(INTERPOLATE[kind] * max(call.size, call.inputs[0].elements)), *traffic(call))


def sort(call: Call) -> Cost:
    source = call.inputs[0]
    dim = call.number("dim", -1)
    length = source.shape[dim] if source.shape and isinstance(dim, int) else source.elements
    return Cost("sort", source.elements * math.log2(max(length, 2)), *traffic(call))


def select_best(call: Call) -> Cost:
    """topk and kthvalue: one comparison per element, as selection takes."""
    return Cost("sort", float(call.inputs[0].elements), *traffic(call))
