"""Reads a pack of measured kernels: which devices, which kernels, how long each took, under which way of measuring.

A pack is a folder with `devices.csv` and `kernels.parquet` (fp32, timed by events around a call, so that the host's
launch path is in every figure) and, optionally, `modern/` with `systems.csv` and one table per operator (low precision,
device time alone). Reading needs pyarrow; the columns are described in the README of the pack.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gnomon.core.errors import NotRunnable, UnknownName, UsageError, did_you_mean
from gnomon.devices import catalogue, sanity
from gnomon.devices.device import Device, Quantity
from gnomon.forecast.kernels import Array, Kernels, Kind, seen_share

_SOURCE = "pack"
TWO_INPUTS = ("add", "mul", "div", "pow")  # tensor with tensor; with the suffix u one of them is a number


class Host(NamedTuple):
    """What a call costs the host that times it: a kernel shorter than `call_s` hides behind it, the launch never."""

    call_s: float
    launch_s: float


# Read off the smallest kernels of the pack (any device): flat until the kernel outlasts the call on NVIDIA's runtime,
# additive on AMD's. PyTorch's linear and layer norm take longer to issue.
_HOSTS = {
    "nvidia": {"linear": Host(56e-6, 15e-6), "normalization": Host(46e-6, 15e-6), "": Host(32e-6, 15e-6)},
    "amd": {"": Host(15e-6, 12e-6)},
}
_NO_HOST = Host(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A device of a pack. role: 'train', 'heldout' or 'spec-only'."""

    device: Device
    role: str


@dataclass(frozen=True, slots=True)
class Samples:
    """Kernels of one kind and precision on one device with what was measured.

    latency_s: as measured. split: 'train' or 'test' per kernel. what: the class as people call it. host: what the way
    of measuring added. is_warm: the call was repeated on the same operands, which may lie in the last cache.
    """

    device: Device
    kernels: Kernels
    latency_s: Array
    split: Array
    what: str
    host: Host = _NO_HOST
    is_warm: bool = False

    def __len__(self) -> int:
        return len(self.latency_s)

    def take(self, rows: Array) -> "Samples":
        return replace(self, kernels=self.kernels.take(rows), latency_s=self.latency_s[rows], split=self.split[rows])

    def measured(self, kernel_s: Array) -> Array:
        """What this way of measuring shows of kernels that take `kernel_s` on the device."""
        return np.maximum(kernel_s + self.host.launch_s, self.host.call_s)

    @property
    def is_visible(self) -> Array:
        """Kernels long enough to be seen behind the host."""
        return self.latency_s > 1.5 * self.host.call_s


@dataclass(frozen=True, slots=True)
class Pack:
    """devices: those of `devices.csv`. systems: those of `modern/systems.csv`. samples: every table there is."""

    folder: Path
    devices: Mapping[str, Entry]
    systems: Mapping[str, Entry]
    samples: tuple[Samples, ...]

    def role(self, name: str) -> str:
        """What the pack says a device is for: 'train', 'heldout' or 'spec-only'."""
        entry = self.devices.get(name) or self.systems.get(name)
        return entry.role if entry is not None else ""


def read_pack(folder: Path) -> Pack:
    """Everything in a pack; parts that are not there are empty. Raises UsageError when nothing is."""
    devices = read_devices(folder / "devices.csv") if (folder / "devices.csv").is_file() else {}
    modern = folder / "modern" / "systems.csv"
    systems = read_devices(modern) if modern.is_file() else {}
    if not devices and not systems:
        raise UsageError(f"{folder}: wanted a pack with devices.csv or modern/systems.csv, found neither")
    samples = list(read_modern(folder, systems))
    if (folder / "kernels.parquet").is_file():
        samples = [*read_kernels(folder, devices), *samples]
    return Pack(folder, devices, systems, tuple(samples))


# Devices --------------------------------------------------------------------------------------------------------------


def read_devices(path: Path) -> dict[str, Entry]:
    """The devices of `devices.csv` (fp32 pack) or `systems.csv` (its `modern` part), by the name that rows use.

    A table says little about units, caches and process of a system; these are taken from the device of the catalogue
    whose numbers are nearest. Raises UsageError naming file, device and column for a number that is missing or absurd.
    """
    rows = _rows(path)
    if rows and "system" in rows[0]:
        return {row["system"]: Entry(_system(path, row), row.get("role", "")) for row in rows}
    if rows and "device" in rows[0]:
        return {row["device"]: Entry(_device(path, row), row.get("role", "")) for row in rows}
    raise UsageError(f"{path}: wanted a table with a column `device` or `system` and at least one row")


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Wanted a table of devices") from None


def _device(path: Path, row: Mapping[str, str]) -> Device:
    number = _reader(path, row["device"], row)
    matrix = number("fp32_matrix_gflops", 1e9) if row.get("fp32_matrix_gflops") else number("fp32_gflops", 1e9)
    vector = number("fp32_vector_gflops", 1e9) if row.get("fp32_vector_gflops") else matrix
    return _checked(path, Device(
        name=row["device"], vendor=row.get("vendor", ""), kind="gpu", architecture="",
        peak_flop_s={"float32": matrix}, vector_flop_s={"float32": vector},
        memory_bytes=number("mem_gb", 1e9), memory_bandwidth_b_s=number("mem_bw_gbs", 1e9), units=number("num_sm", 1),
        clock_hz=number("freq_mhz", 1e6), cache_bytes=number("l2_mb", 2**20),
        tdp_w=number("tdp_w", 1) if row.get("tdp_w") else None, sources={_SOURCE: path.name},
    ))  # fmt: skip


def _system(path: Path, row: Mapping[str, str]) -> Device:
    number = _reader(path, row["system"], row)
    columns = {"bfloat16": "bf16_tflops", "int8": "int8_tops", "float8": "fp8_tflops", "float4": "fp4_tflops"}
    peaks = {name: number(column, 1e12) for name, column in columns.items() if float(row.get(column) or 0) > 0}
    if "bfloat16" not in peaks:
        raise UsageError(
            f"{path}: {row['system']}: bf16_tflops: wanted a positive number, got {row.get('bf16_tflops')}"
        )
    peaks["float16"] = peaks["bfloat16"]
    bare = Device(
        name=row["system"], vendor="nvidia", kind="gpu", architecture="", peak_flop_s=peaks,
        memory_bytes=number("mem_gib", 2**30), memory_bandwidth_b_s=number("mem_bw_gbs", 1e9),
        units=Quantity(1.0, _SOURCE), tdp_w=number("tdp_w", 1), link_b_s=number("intra_node_gbs", 1e9),
        sources={_SOURCE: path.name},
    )  # fmt: skip
    kin = nearest(bare)
    lanes = {"float32": Quantity(kin.vector("float32"), _SOURCE)}
    return replace(
        bare, units=kin.units, clock_hz=kin.clock_hz, cache_bytes=kin.cache_bytes, process_m=kin.process_m,
        vector_flop_s=lanes, peak_flop_s={**peaks, **lanes},
    )  # fmt: skip


def _reader(path: Path, name: str, row: Mapping[str, str]) -> Callable[[str, float], Quantity]:
    def number(column: str, unit: float) -> Quantity:
        text = row.get(column) or ""
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise UsageError(f"{path}: {name}: {column}: wanted a positive number, got {text!r}")
        return Quantity(value * unit, _SOURCE)

    return number


def _checked(path: Path, device: Device) -> Device:
    problems = sanity.contradictions(device)
    if problems:
        raise UsageError(f"{path}: {device.name}: {problems[0].where}: {problems[0].message}")
    kin = nearest(device)
    half = {p: q for p, q in kin.peak_flop_s.items() if p in ("float16", "bfloat16", "tf32")}
    return replace(
        device, process_m=kin.process_m, tdp_w=device.tdp_w or kin.tdp_w, peak_flop_s={**half, **device.peak_flop_s}
    )


def nearest(device: Device) -> Device:
    """The device of the catalogue whose numbers, not its name, are nearest: memory, bandwidth, peaks, power limit."""

    def distance(known: Device) -> float:
        apart = [abs(np.log(known.memory_bandwidth_b_s.value / device.memory_bandwidth_b_s.value))]
        apart.append(0.3 * abs(np.log(known.memory_bytes.value / device.memory_bytes.value)))
        apart += [
            abs(np.log(known.peak_flop_s[p].value / device.peak_flop_s[p].value))
            for p in ("bfloat16", "float32")
            if p in known.peak_flop_s and p in device.peak_flop_s
        ] or [2.0]
        for field in ("clock_hz", "cache_bytes", "tdp_w"):
            ours, theirs = getattr(device, field), getattr(known, field)
            if ours is not None and theirs is not None:
                apart.append(abs(np.log(ours.value / theirs.value)))
        return float(np.mean(apart))

    return min(catalogue.every(), key=distance)


# Kernels --------------------------------------------------------------------------------------------------------------


def read_kernels(pack: Path, devices: Mapping[str, Entry], more: Sequence[str] = ()) -> Iterator[Samples]:
    """The fp32 kernels of `pack` by kind and device. Rows of a device that `devices` does not describe are an error.

    more: further columns of numbers, kept among the sizes of the kernels; NaN where a row has none.
    """
    columns = ["device", "split", "op_class", "op", "B", "M", "N", "K", "H", "latency_ms", *more]
    table = read_table(pack / "kernels.parquet", columns)
    unknown = sorted(set(table["device"]) - set(devices))
    if unknown:
        raise UsageError(f"{pack / 'devices.csv'}: no row for {', '.join(map(repr, unknown))}, which kernels name")
    kinds: dict[Kind, tuple[str, str | None]] = {
        "linear": ("matmul", "linear"), "bmm": ("matmul", "bmm"), "elementwise": ("elementwise", None),
        "softmax": ("softmax", None), "normalization": ("layernorm", None),
    }  # fmt: skip
    traced = _traced_rows(pack)
    for name in sorted(set(table["device"])):
        for kind, (op_class, op) in kinds.items():
            chosen = (table["device"] == name) & (table["op_class"] == op_class)
            rows = np.flatnonzero(chosen & (table["op"] == op) if op else chosen)
            if not len(rows):
                continue
            device = devices[name].device
            host = _HOSTS.get(device.vendor, _HOSTS["nvidia"])
            mine = {column: values[rows] for column, values in table.items()}
            if (name, kind) in traced and "test" not in mine["split"]:
                found = traced[name, kind]
                mine = {column: np.concatenate([mine[column], found.get(column, found["M"])]) for column in mine}
            latency_s = mine["latency_ms"].astype(float) / 1e3
            kernels = _fp32(kind, mine)
            kernels = replace(
                kernels, sizes={**kernels.sizes, **{column: mine[column].astype(float) for column in more}}
            )
            yield Samples(device, kernels, latency_s, mine["split"], kind, host.get(kind, host[""]))


def _traced_rows(pack: Path) -> dict[tuple[str, Kind], dict[str, Array]]:
    """Softmax and layer norm as timed inside real models, in the columns of `kernels.parquet`.

    They stand in for the shapes of real models on devices whose kernels were measured at random shapes only. Products
    are left out: on one GPU of the public pack a throttled session timed them at two thirds of their speed.
    """
    path = pack / "op_labels.parquet"
    if not path.is_file():
        return {}
    table = read_table(path, ["device", "op", "output_shape", "fw_ms"])
    found: dict[tuple[str, Kind], dict[str, Array]] = {}
    names: dict[str, Kind] = {"VECsoftmax": "softmax", "VECln": "normalization"}
    for op, kind in names.items():
        for device in sorted(set(table["device"])):
            rows = np.flatnonzero((table["op"] == op) & (table["device"] == device))
            shapes = [json.loads(text) for text in table["output_shape"][rows]]
            columns = np.array([shape[-1] for shape in shapes], dtype=float)
            count = np.array([math.prod(shape) for shape in shapes], dtype=float) / columns
            nothing = np.full(len(rows), np.nan)
            found[device, kind] = {
                "device": table["device"][rows], "split": np.full(len(rows), "test", dtype=object),
                "op_class": table["op"][rows], "op": np.full(len(rows), kind, dtype=object), "B": count,
                "M": nothing, "N": nothing, "K": nothing, "H": columns, "latency_ms": table["fw_ms"][rows],
            }  # fmt: skip
    return found


def _fp32(kind: Kind, table: Mapping[str, Array]) -> Kernels:
    number = {name: np.nan_to_num(table[name].astype(float), nan=1.0) for name in ("B", "M", "N", "K", "H")}
    if kind in ("linear", "bmm"):  # N is the contraction in the pack's tables
        return products(kind, number["B"], number["M"], number["K"], number["N"])
    return vectors(kind, table["op"], number["B"], number["H"])


def products(kind: Kind, batch: Array, m: Array, n: Array, k: Array, item_bytes: float = 4.0,
             precision: str = "float32") -> Kernels:  # fmt: skip
    """[batch] products of m x k by k x n."""
    moved = item_bytes * batch * (m * k + k * n + m * n)
    sizes = {"batch": batch, "m": m, "n": n, "k": k, "flop": 2 * batch * m * n * k, "moved_bytes": moved}
    return Kernels(kind, precision, {**sizes, "item_bytes": np.full_like(m, item_bytes)})


def vectors(kind: Kind, op: Array, rows: Array, columns: Array) -> Kernels:
    """Operators on [rows, columns] fp32 elements that write as many."""
    elements = rows * columns
    operands = 2.0 + np.isin(op, TWO_INPUTS)
    flop = elements * np.where(np.isin(op, ("pow",)), POW_FLOP, 1.0)
    sizes = {"flop": flop, "moved_bytes": 4 * elements * operands, "item_bytes": np.full_like(rows, 4.0)}
    if kind != "elementwise":
        sizes |= {"rows": rows, "columns": columns}
    return Kernels(kind, "float32", sizes)


POW_FLOP = 20.0  # x ** y with two tensors is a logarithm, a product and an exponential


# Low precision --------------------------------------------------------------------------------------------------------


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


def read_table(path: Path, columns: list[str] | None) -> dict[str, Array]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise NotRunnable("reading a pack needs pyarrow: pip install 'gnomon[fit]'") from None
    try:
        present = parquet.read_schema(path).names
        missing = ", ".join(name for name in columns or () if name not in present)
        if missing:
            raise UsageError(f"{path}: lacks the columns {missing}; see the README of the pack")
        table = parquet.read_table(path, columns=columns)
    except (OSError, ValueError) as error:  # Arrow's own errors are ValueErrors
        raise UsageError(f"{path}: cannot be read as Parquet: {error}") from None
    return {name: _array(table[name]) for name in table.column_names}


def _array(column: Any) -> Array:
    if str(column.type) in ("string", "large_string") or str(column.type).startswith("dictionary"):
        coded = column.combine_chunks().dictionary_encode() if hasattr(column, "combine_chunks") else column
        words = np.array([*(str(word) for word in coded.dictionary.to_pylist()), ""], dtype=object)
        return words[np.nan_to_num(coded.indices.to_numpy(zero_copy_only=False).astype(float), nan=-1).astype(int)]
    return column.to_numpy()


def find_device(path: Path, name: str) -> Device:
    """The device of a table by its name. Raises UnknownName with the nearest names."""
    devices = read_devices(path)
    if name not in devices:
        raise UnknownName(f"{path}: no device is called {name!r}.{did_you_mean(name, devices)} "
                          f"It has {', '.join(devices)}")  # fmt: skip
    return devices[name].device
