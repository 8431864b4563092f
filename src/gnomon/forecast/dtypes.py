"""In which precision a model is priced, whatever dtype it was captured in.

A dtype of torch is priced as it is. Two things are no dtype of a whole model: TF32 is how float32 products are
multiplied, and a model 'in float8' (or int8) keeps everything but its linear layers in 16 bits. The casts around an
8-bit product are taken to be fused into what comes before it, as libraries do.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from gnomon.core.errors import UsageError, did_you_mean
from gnomon.workload.graph import ITEM_BYTES, Op, OpGraph
from gnomon.workload.memory import lifetimes

CASTABLE = ("float32", "float16", "bfloat16")  # what a change of dtype applies to; float64 and float8 were asked for
PRODUCTS = ("matmul", "convolution", "attention")


class Cast(NamedTuple):
    """rest: dtype of tensors. products: precision of products, if `only_linear` of linear layers' alone."""

    rest: str
    products: str
    only_linear: bool = False

    def precision(self, op: Op) -> str:
        """The precision that an operator computes in."""
        if op.category not in PRODUCTS or (self.only_linear and not is_linear(op)):
            return self.rest
        return self.products

    def read_scale(self, op: Op) -> float:
        """Bytes of an operand over those in `rest`: an 8-bit product reads 8-bit operands, and writes `rest`."""
        return 1 / ITEM_BYTES[self.rest] if self.only_linear and is_linear(op) else 1.0


CASTS: Mapping[str, Cast] = {
    "float64": Cast("float64", "float64"),
    "float32": Cast("float32", "float32"),
    "tf32": Cast("float32", "tf32"),
    "float16": Cast("float16", "float16"),
    "bfloat16": Cast("bfloat16", "bfloat16"),
    "float8": Cast("bfloat16", "float8", only_linear=True),
    "int8": Cast("float16", "int8", only_linear=True),  # the devices with int8 units all have float16, not all bfloat16
}


def cast(dtype: str) -> Cast:
    """How a model is priced in `dtype`. Raises UsageError for one that nobody prices."""
    if dtype not in CASTS:
        near = did_you_mean(dtype, CASTS)
        raise UsageError(f"wanted a dtype out of {', '.join(CASTS)}; got {dtype!r}.{near}")
    return CASTS[dtype]


def captured_in(dtype: str | None) -> str | None:
    """The dtype to capture a model in so that it can be priced in `dtype`; None: the task's own."""
    return None if dtype is None else cast(dtype).rest


def is_linear(op: Op) -> bool:
    """Whether an operator is the product of a linear layer, forward or backward; attention's products are batched."""
    return op.category == "matmul" and op.name.removeprefix("aten.").partition(".")[0] in ("mm", "addmm", "linear")


def resized(graph: OpGraph, dtype: str | None) -> OpGraph:
    """`graph` with the storages that it takes when its floats are kept in `dtype`.

    Weights of linear layers take 8 bits where these layers compute in 8 bits, unless they are trained.
    """
    if dtype is None:
        return graph
    how = cast(dtype)
    size = dict.fromkeys(CASTABLE, ITEM_BYTES[how.rest])
    numbers = range(len(graph.storages)) if graph.storages else sorted({info.storage for info in graph.tensors})
    held = {info.storage: info.dtype for info in graph.tensors}
    small = set()
    if how.only_linear and graph.mode == "inference":
        taken = (graph.tensors[i] for op in graph.ops if is_linear(op) for i in op.inputs)
        small = {info.storage for info in taken if info.role == "parameter" and len(info.shape) == 2}
    storages = []
    for number, storage in zip(numbers, graph.storages or lifetimes(graph), strict=True):
        old = held.get(number, "int64")
        new = 1 if number in small and old in size else size.get(old)
        whole = storage.bytes * new // ITEM_BYTES[old] if new is not None else storage.bytes
        storages.append(replace(storage, bytes=whole))
    return replace(graph, storages=tuple(storages))
