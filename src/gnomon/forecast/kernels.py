"""Many kernels of one kind as arrays: what the GPU model prices at once, be they from a graph or a data pack."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from gnomon.forecast.work import Work

Kind = Literal[
    "linear", "bmm", "elementwise", "softmax", "normalization", "convolution", "prefill", "decode", "moe", "other"
]
Array = np.ndarray
_STREAMS = ("elementwise", "copy", "optimizer", "random")


@dataclass(frozen=True, slots=True)
class Kernels:
    """`count` kernels. precision: of the arithmetic. sizes: name -> float64 array, one entry per kernel.

    Every kind has `flop`, `moved_bytes`, `item_bytes`. In addition
    linear, bmm: batch, m, n, k. elementwise: elements, inputs. softmax, normalization: rows, columns.
    prefill, decode: batch, heads, kv_heads, queries, keys, head_size, causal (0 or 1), window, kv_bytes, library.
    moe: tokens, hidden, inner, experts, chosen. convolution: the product that it amounts to, as linear.
    """

    kind: Kind
    precision: str
    sizes: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.sizes["flop"])

    def __getitem__(self, name: str) -> Array:
        return self.sizes[name]

    def take(self, rows: Array) -> "Kernels":
        return Kernels(self.kind, self.precision, {name: values[rows] for name, values in self.sizes.items()})


class Group(NamedTuple):
    """Kernels of one kind and precision, and where each of them stands in the list that they were taken from."""

    positions: Array
    kernels: Kernels


def group(works: Sequence[Work]) -> list[Group]:
    """The demands of a graph by kind and precision. Views and collectives are nobody's kernel and are left out."""
    members: dict[tuple[Kind, str], list[int]] = defaultdict(list)
    for i, work in enumerate(works):
        if work.category not in ("view", "collective"):
            members[kind_of(work), work.precision].append(i)
    return [
        Group(np.array(indices), _kernels(kind, precision, [works[i] for i in indices]))
        for (kind, precision), indices in members.items()
    ]


def kind_of(work: Work) -> Kind:
    """Which model prices this operator."""
    if work.operator.startswith("fused"):
        return "elementwise"  # a compiler's kernel keeps a row at hand: it streams, whatever it reduces
    if work.matmul is not None:
        return "bmm" if work.matmul.batch > 1 else "linear"
    if work.attention is not None:
        return "decode" if work.attention.queries <= 16 and "backward" not in work.operator else "prefill"
    if work.rows is not None:
        return "softmax" if work.category == "softmax" else "normalization"
    if work.category == "convolution":
        return "convolution"
    return "elementwise" if work.category in _STREAMS else "other"


def _kernels(kind: Kind, precision: str, works: Sequence[Work]) -> Kernels:
    sizes = {
        "flop": [work.flop or 0.0 for work in works],
        "moved_bytes": [work.moved_bytes for work in works],
        "item_bytes": [work.item_bytes for work in works],
    }
    if kind in ("linear", "bmm"):
        for name in ("batch", "m", "n", "k"):
            sizes[name] = [float(getattr(work.matmul, name)) for work in works]
    elif kind in ("softmax", "normalization"):
        for name in ("rows", "columns"):
            sizes[name] = [float(getattr(work.rows, name)) for work in works]
    elif kind in ("prefill", "decode"):
        for name in ("batch", "heads", "kv_heads", "queries", "keys", "head_size", "window"):
            sizes[name] = [float(getattr(work.attention, name)) for work in works]
        sizes["causal"] = [float(work.attention.is_causal) for work in works if work.attention is not None]
        sizes["kv_bytes"] = sizes["item_bytes"]
        sizes["library"] = [0.0] * len(works)  # PyTorch's own kernels are flash attention
    arrays = {name: np.array(values, dtype=float) for name, values in sizes.items()}
    if kind in ("prefill", "decode"):  # cost rules count the whole score matrix, kernels skip what a mask hides
        arrays["flop"] = arrays["flop"] * seen_share(arrays)
    return Kernels(kind, precision, arrays)


def seen_share(sizes: Mapping[str, Array]) -> Array:
    """Share of the score matrix that attention computes: a window's, or half of it when causal."""
    keys, window, queries = sizes["keys"], sizes["window"], sizes["queries"]
    windowed = np.where(window > 0, np.minimum(window, keys), keys) / keys
    return np.asarray(windowed * np.where((sizes["causal"] > 0) & (queries > 1) & (windowed == 1), 0.5, 1.0))
