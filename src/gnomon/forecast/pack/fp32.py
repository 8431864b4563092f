"""The fp32 kernels of a pack, timed by events around a call."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gnomon.core.errors import UsageError
from gnomon.forecast.kernels import Array, Kernels, Kind
from gnomon.forecast.pack.devices import Entry
from gnomon.forecast.pack.samples import Host, Samples
from gnomon.forecast.pack.table import read_table

TWO_INPUTS = ("add", "mul", "div", "pow")  # tensor with tensor; with the suffix u one of them is a number
# Read off the smallest kernels of the pack (any device): flat until the kernel outlasts the call on NVIDIA's runtime,
# additive on AMD's. PyTorch's linear and layer norm take longer to issue.
_HOSTS = {
    "nvidia": {"linear": Host(56e-6, 15e-6), "normalization": Host(46e-6, 15e-6), "": Host(32e-6, 15e-6)},
    "amd": {"": Host(15e-6, 12e-6)},
}


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
