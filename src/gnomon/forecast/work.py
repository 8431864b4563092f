"""What an operator asks of a device: the features from which physics prices it. Device-independent, torch-free."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.forecast.collectives import Transfer
from gnomon.forecast.dtypes import CASTABLE, CASTS, Cast, cast
from gnomon.forecast.layout import strided_bytes
from gnomon.workload.graph import ITEM_BYTES, Category, Op, OpGraph

_FLOATS = {"float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"}
PRECISIONS = tuple(CASTS)

# operators that an argument makes another kernel: operator -> argument, its value, what we call it then
_VARIANTS: dict[str, tuple[str, Any, str]] = {
    "clone": ("memory_format", "contiguous_format", "contiguous"),
    "gelu": ("approximate", "tanh", "gelu_tanh"),
    "gelu_backward": ("approximate", "tanh", "gelu_tanh_backward"),
    "native_batch_norm": ("training", True, "native_batch_norm_training"),
}


@dataclass(frozen=True, slots=True)
class MatmulShape:
    """[batch] products of m x k by k x n."""

    batch: int
    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class ConvolutionShape:
    """One convolution, whichever of its three products runs. inputs, outputs: channels of one group.

    kernel, pixels, source: elements of the window, of one output image and of one input image.
    """

    batch: int
    groups: int
    inputs: int
    outputs: int
    kernel: int
    pixels: int
    source: int


@dataclass(frozen=True, slots=True)
class RowShape:
    """A softmax or a normalization: `rows` groups of `columns` elements that are reduced together."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Scaled-dot-product attention of `queries` tokens over `keys` tokens; kv_heads < heads shares keys among heads."""

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    head_size: int
    is_causal: bool = False
    window: int = 0  # 0: every key is seen


@dataclass(frozen=True, slots=True)
class Work:
    """One operator's demand. precision: that of its arithmetic; flop None: no cost rule knows the operator.

    operator: 'add' of 'aten.add.Tensor', in place or not; another name where an argument makes it another kernel.
    written_bytes: the part of moved_bytes that is written. fresh_bytes: memory that the operator had to allocate.
    weight_bytes: the part of moved_bytes that is the parameters of a matrix product. item_bytes: size of an element.
    transfer: what a collective moves between devices. strided_bytes: the part of moved_bytes that does not lie in the
    order in which it is read. indices: how many rows or numbers a gather or scatter picks.
    """

    category: Category
    precision: str
    flop: float | None
    moved_bytes: float
    matmul: MatmulShape | None = None
    operator: str = ""
    written_bytes: float = 0.0
    fresh_bytes: float = 0.0
    convolution: ConvolutionShape | None = None
    weight_bytes: float = 0.0
    transfer: Transfer | None = None
    item_bytes: float = 4.0
    rows: RowShape | None = None
    attention: AttentionShape | None = None
    strided_bytes: float = 0.0
    indices: int = 0


def works(graph: OpGraph, dtype: str | None = None) -> list[Work]:
    """The demand of every operator of the graph, in order.

    dtype: run the floating-point operators that are float32, float16 or bfloat16 in this dtype instead, as
    `dtypes.CASTS` says; their traffic scales with the size of an element. Raises UsageError for any other dtype.
    """
    how = None if dtype is None else cast(dtype)
    fresh: dict[int, int] = defaultdict(int)
    for storage in graph.storages:
        fresh[storage.born] += storage.bytes
    strided = strided_bytes(graph)
    return [_work(op, graph, how, fresh.get(i, 0), strided[i]) for i, op in enumerate(graph.ops)]


def _work(op: Op, graph: OpGraph, how: Cast | None, fresh_bytes: float, strided: float) -> Work:
    own = next((graph.tensors[i].dtype for i in (*op.inputs, *op.outputs) if graph.tensors[i].dtype in _FLOATS), None)
    precision, scale, read_scale = own or "float32", 1.0, 1.0
    if own is None and any(graph.tensors[i].dtype in ("int8", "uint8") for i in op.inputs):
        precision = "int8"
    elif how is not None and own in CASTABLE:
        precision, scale, read_scale = how.precision(op), ITEM_BYTES[how.rest] / ITEM_BYTES[own], how.read_scale(op)
    elif precision.startswith("float8"):
        precision = "float8"
    return Work(
        op.category,
        precision,
        op.flop,
        (op.read_bytes * read_scale + op.written_bytes) * scale,
        matmul=_matmul_shape(graph.shapes(op.inputs)) if op.category == "matmul" else None,
        operator=_operator(op),
        written_bytes=op.written_bytes * scale,
        fresh_bytes=fresh_bytes * scale,
        convolution=_convolution_shape(op, graph) if op.category == "convolution" else None,
        weight_bytes=_weight_bytes(op, graph) * scale * read_scale,
        transfer=_transfer(op, scale) if op.category == "collective" else None,
        strided_bytes=strided * scale * read_scale,
        indices=_indices(op, graph) if op.category == "gather" else 0,
        item_bytes=ITEM_BYTES[own or "float32"] * scale,
        rows=_row_shape(op, graph.shapes(op.inputs)) if op.category in ("softmax", "normalization") else None,
        attention=_attention_shape(op, graph.shapes(op.inputs)) if op.category == "attention" else None,
    )


def _row_shape(op: Op, shapes: Sequence[tuple[int, ...]]) -> RowShape | None:
    """Elements that are normalised together, from the operator's own arguments; batch statistics run over a channel."""
    if not shapes or not math.prod(shapes[0]):
        return None
    shape = shapes[0]
    if "normalized_shape" in op.attributes:
        columns = math.prod(op.attributes["normalized_shape"])
    elif "batch_norm" in op.name and len(shape) > 1:
        columns = math.prod(shape) // shape[1]
    else:
        dim = op.attributes.get("dim", -1)
        columns = shape[dim] if shape and isinstance(dim, int) and -len(shape) <= dim < len(shape) else shape[-1]
    return RowShape(math.prod(shape) // columns, columns)


def _attention_shape(op: Op, shapes: Sequence[tuple[int, ...]]) -> AttentionShape | None:
    """From query and key [batch, heads, tokens, head size]; a backward operator has the gradient before them."""
    operands = [s for s in shapes if len(s) == 4]
    if "backward" in op.name:
        operands = operands[1:]
    if len(operands) < 2 or 0 in operands[0] + operands[1]:
        return None
    (batch, heads, queries, size), (_, kv_heads, keys, _) = operands[:2]
    return AttentionShape(batch, heads, kv_heads, queries, keys, size, bool(op.attributes.get("is_causal", False)))


def _transfer(op: Op, scale: float) -> Transfer:
    """From the attributes that `parallel` gives its collectives."""
    about = op.attributes
    kind = op.name.removeprefix("gnomon.")
    return Transfer(kind, about["bytes"] * scale, about["group"], about["per_node"])  # type: ignore[arg-type]


def _indices(op: Op, graph: OpGraph) -> int:
    return max(
        (graph.tensors[i].elements for i in op.inputs if graph.tensors[i].dtype in ("int64", "int32")), default=0
    )


def _weight_bytes(op: Op, graph: OpGraph) -> float:
    """Parameters with two or more axes among a product's operands; a bias is no weight."""
    if op.category != "matmul":
        return 0.0
    taken = [graph.tensors[i] for i in dict.fromkeys(op.inputs)]
    return min(op.read_bytes, sum(t.bytes for t in taken if t.role == "parameter" and len(t.shape) >= 2))


def _operator(op: Op) -> str:
    name = op.name.removeprefix("aten.").partition(".")[0]
    name = name if name.startswith("_") else name.removesuffix("_")
    variant = _VARIANTS.get(name)
    if variant is not None and op.attributes.get(variant[0]) == variant[1]:
        return variant[2]
    return name


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


def _convolution_shape(op: Op, graph: OpGraph) -> ConvolutionShape | None:
    """From (input, weight) -> output, or backward from (gradient of the output, input, weight)."""
    shapes = graph.shapes(op.inputs)
    if op.name.removeprefix("aten.").startswith("convolution_backward"):
        if len(shapes) < 3:
            return None
        output, source, weight = shapes[:3]
    elif len(shapes) >= 2 and op.outputs:
        (source, weight), output = shapes[:2], graph.tensors[op.outputs[0]].shape
    else:
        return None
    if min(len(output), len(source), len(weight)) < 3 or 0 in (*output, *source, *weight):
        return None
    groups = int(op.attributes.get("groups", 1))
    first, second = weight[0], weight[1]
    inputs, outputs = (first // groups, second) if op.attributes.get("transposed") else (second, first // groups)
    pixels, points = math.prod(output[2:]), math.prod(source[2:])
    return ConvolutionShape(output[0], groups, inputs, outputs, math.prod(weight[2:]), pixels, points)
