"""The low-precision kernels of a pack, timed on the device alone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from gnomon.core.errors import UsageError
from gnomon.forecast.kernels import Array, Kernels, Kind, seen_share
from gnomon.forecast.pack.devices import Entry
from gnomon.forecast.pack.fp32 import products
from gnomon.forecast.pack.samples import Samples
from gnomon.forecast.pack.table import read_table


def read_modern(pack: Path, systems: Mapping[str, Entry]) -> Iterator[Samples]:
    """The low-precision kernels of `pack`/modern by kind, precision and system; a table may be missing."""
    folder = pack / "modern"
    for file, (what, read) in _MODERN.items():
        if not (folder / file).is_file():
            continue
        table = read_table(folder / file, None)
        unknown = sorted(set(table["system"]) - set(systems))
        if unknown:
            raise UsageError(f"{folder / 'systems.csv'}: no row for {', '.join(unknown)}, which {file} names")
        for name in sorted(set(table["system"])):
            rows = np.flatnonzero(table["system"] == name)
            mine = {column: values[rows] for column, values in table.items()}
            for chosen, kernels in read(mine):
                latency_s = mine["latency_ms"][chosen].astype(float) / 1e3
                split = np.full(len(chosen), "test")
                yield Samples(systems[name].device, kernels, latency_s, split, what, is_warm=True)


_Read = Callable[[Mapping[str, Array]], Iterator[tuple[Array, Kernels]]]
_GEMM_PRECISION = {"bfloat16": ("bfloat16", 2.0), "fp8": ("float8", 1.0)}


def _gemm(table: Mapping[str, Array]) -> Iterator[tuple[Array, Kernels]]:
    for name, (precision, item_bytes) in _GEMM_PRECISION.items():
        rows = np.flatnonzero(table["gemm_dtype"] == name)
        if len(rows):
            m, n, k = (table[c][rows].astype(float) for c in "mnk")
            kernels = products("linear", np.ones_like(m), m, n, k, item_bytes, precision)
            sizes = dict(kernels.sizes)
            sizes["moved_bytes"] = item_bytes * (m * k + k * n) + 2.0 * m * n  # results are 16-bit
            yield rows, replace(kernels, sizes=sizes)


def _attention(kind: Kind) -> _Read:
    def read(table: Mapping[str, Array]) -> Iterator[tuple[Array, Kernels]]:
        rows = np.flatnonzero(table["attn_dtype"] == "bfloat16")

        def column(name: str, default: float = 0.0) -> Array:
            return np.nan_to_num(table[name][rows].astype(float)) if name in table else np.full(len(rows), default)

        is_decoder = "num_key_value_heads" in table  # the table of encoders has neither shared keys nor a mask
        sizes = {
            "batch": column("batch_size"), "heads": column("num_heads"), "head_size": column("head_dim"),
            "kv_heads": column("num_key_value_heads" if is_decoder else "num_heads"), "queries": column("isl"),
            "keys": column("isl") if kind == "prefill" else column("step") + 1, "window": column("window_size"),
            "causal": np.full(len(rows), float(is_decoder)), "library": library(table["kernel_source"][rows]),
            "kv_bytes": np.where(table["kv_cache_dtype"][rows] == "fp8", 1.0, 2.0) if is_decoder else 2 + column(""),
        }  # fmt: skip
        yield rows, attention(kind, sizes)

    return read


_LIBRARIES = ("flashinfer", "torch_flow", "triton")  # TensorRT-LLM calls its own kernels torch_flow


def library(source: Array) -> Array:
    """Which family a kernel belongs to: 0 flash attention, then the places in _LIBRARIES counted from 1."""
    names = [str(name) for name in source]
    return np.array([next((i for i, part in enumerate(_LIBRARIES, 1) if part in name), 0) for name in names], float)


def attention(kind: Kind, sizes: Mapping[str, Array], item_bytes: float = 2.0, precision: str = "bfloat16") -> Kernels:
    """Attention with the `sizes` that `Kernels` names. FLOP: two products over the keys seen, half if causal."""
    batch, heads, queries, keys, window = (sizes[name] for name in ("batch", "heads", "queries", "keys", "window"))
    kept = keys if kind == "prefill" else np.where(window > 0, np.minimum(window, keys), keys)
    moved = item_bytes * heads * queries + sizes["kv_bytes"] * sizes["kv_heads"] * kept
    cost = {
        "flop": 4 * batch * heads * sizes["head_size"] * queries * keys * seen_share(sizes),
        "moved_bytes": 2 * batch * sizes["head_size"] * moved,
        "item_bytes": np.full_like(batch, item_bytes),
    }
    return Kernels(kind, precision, {**sizes, **cost})


def _moe(table: Mapping[str, Array]) -> Iterator[tuple[Array, Kernels]]:
    rows = np.flatnonzero((table["moe_dtype"] == "bfloat16") & (table["distribution"] == "balanced"))
    columns = ("num_tokens", "hidden_size", "inter_size", "num_experts", "topk", "moe_tp_size", "moe_ep_size")
    if len(rows):
        sizes = (table[name][rows].astype(float) for name in columns)
        yield rows, experts(library(table["kernel_source"][rows]), *sizes)


def experts(library: Array, tokens: Array, hidden: Array, inner: Array, count: Array, chosen: Array,
            tensor_parallel: Array, expert_parallel: Array) -> Kernels:  # fmt: skip
    """A gated mixture of experts: three products with the weights of the experts that the tokens of a batch reach."""
    here, width = count / expert_parallel, inner / tensor_parallel
    assignments = tokens * chosen / expert_parallel
    reached = here * (1 - (1 - 1 / here) ** assignments)
    flop = 6 * assignments * hidden * width
    moved = 2 * (3 * reached * hidden * width + assignments * (2 * hidden + 3 * width))
    sizes = {
        "tokens": tokens, "hidden": hidden, "inner": width, "experts": here,
        "chosen": chosen / expert_parallel, "library": library, "flop": flop, "moved_bytes": moved,
        "item_bytes": np.full_like(tokens, 2.0),
    }  # fmt: skip
    return Kernels("moe", "bfloat16", sizes)


_MODERN: dict[str, tuple[str, _Read]] = {
    "gemm.parquet": ("GEMM", _gemm),
    "attention_context.parquet": ("prefill attention", _attention("prefill")),
    "attention_encoder.parquet": ("encoder attention", _attention("prefill")),
    "attention_decode.parquet": ("decode attention", _attention("decode")),
    "moe.parquet": ("mixture of experts", _moe),
}
