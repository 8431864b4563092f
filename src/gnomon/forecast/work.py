"""What an operator asks of a device: the features from which physics prices it. Device-independent, torch-free."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.core.errors import UsageError
from gnomon.workload.graph import ITEM_BYTES, Category, Op, OpGraph

_FLOATS = {"float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"}
PRECISIONS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class MatmulShape:
    """[batch] products of m x k by k x n."""

    batch: int
    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class Work:
    """One operator's demand. precision: that of its arithmetic; flop None: no cost rule knows the operator."""

    category: Category
    precision: str
    flop: float | None
    moved_bytes: float
    matmul: MatmulShape | None = None


def works(graph: OpGraph, dtype: str | None = None) -> list[Work]:
    """The demand of every operator of the graph, in order.

    dtype: run the floating-point operators that are float32, float16 or bfloat16 in this dtype instead; their traffic
    scales with the size of an element. Raises UsageError for a dtype that is none of `PRECISIONS`.
    """
    if dtype is not None and dtype not in PRECISIONS:
        raise UsageError(f"wanted a dtype out of {', '.join(PRECISIONS)}; got {dtype!r}")
    return [_work(op, graph, dtype) for op in graph.ops]


def _work(op: Op, graph: OpGraph, dtype: str | None) -> Work:
    own = next((graph.tensors[i].dtype for i in (*op.inputs, *op.outputs) if graph.tensors[i].dtype in _FLOATS), None)
    precision, scale = own or "float32", 1.0
    if own is None and any(graph.tensors[i].dtype in ("int8", "uint8") for i in op.inputs):
        precision = "int8"
    elif dtype is not None and own in ("float32", "float16", "bfloat16"):
        precision, scale = dtype, ITEM_BYTES[dtype] / ITEM_BYTES[own]
    elif precision.startswith("float8"):
        precision = "float8"
    shape = _matmul_shape([graph.tensors[i].shape for i in op.inputs]) if op.category == "matmul" else None
    return Work(op.category, precision, op.flop, op.moved_bytes * scale, shape)


def _matmul_shape(shapes: Sequence[tuple[int, ...]]) -> MatmulShape | None:
    """The last two operands with two or more dimensions; what comes before them is a bias."""
    operands = [s for s in shapes if len(s) >= 2][-2:]
    if len(operands) < 2:
        return None
    (*batch, m, k), (*_, k_other, n) = operands
    if k != k_other:  # linear keeps its weight transposed
        n, k_other = k_other, n
    if k != k_other or math.prod(batch) * m * n * k == 0:
        return None
    return MatmulShape(math.prod(batch), m, n, k)
