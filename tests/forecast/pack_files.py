"""A pack on disk whose latencies follow a known law: physics times a factor of the device, plus what the host adds."""

import csv
import json
from pathlib import Path

import numpy as np

from gnomon.forecast import gpu
from gnomon.forecast.pack import fp32
from gnomon.forecast.pack.devices import read_devices

DEVICES = {  # name -> (role, bandwidth in GB/s, fp32 GFLOP/s, level: log of measured / physics)
    "alpha": ("train", 900, 14000, 0.15),
    "beta": ("train", 1000, 15500, 0.25),
    "gamma": ("heldout", 950, 14700, 0.20),
}
_COLUMNS = (
    "device,vendor,role,mem_gb,mem_bw_gbs,num_sm,cores_per_sm,freq_mhz,fp32_gflops,fp32_matrix_gflops,"
    "fp32_vector_gflops,l2_mb,tdp_w,tdp_source"
)


def write_devices(path: Path, **changes: str) -> Path:
    """devices.csv with the DEVICES; changes: columns of the first row to overwrite."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS.split(","))
        writer.writeheader()
        for name, (role, bandwidth, peak, _) in DEVICES.items():
            row = {"device": name, "vendor": "nvidia", "role": role, "mem_gb": 32, "mem_bw_gbs": bandwidth,
                   "num_sm": 80, "freq_mhz": 1370, "fp32_gflops": peak, "l2_mb": 6, "tdp_w": 250}  # fmt: skip
            writer.writerow({**row, **(changes if name == "alpha" else {})})
    return path


def write_kernels(folder: Path, count: int = 300) -> None:
    """kernels.parquet: `count` products, vectors and rows of each device, the first half 'test'."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rng = np.random.default_rng(0)
    entries = read_devices(folder / "devices.csv")
    tables = []
    for name, (_, _, _, level) in DEVICES.items():
        device = entries[name].device
        for op_class, op, kind in (("matmul", "linear", "linear"), ("matmul", "bmm", "bmm"),
                                   ("elementwise", "relu", "elementwise"), ("softmax", "softmax", "softmax"),
                                   ("layernorm", "ln", "normalization")):  # fmt: skip
            size = {c: 2.0 ** rng.integers(9, 13, count) for c in ("M", "N", "K", "H")}
            size["B"] = 2.0 ** rng.integers(3, 7, count) if op == "bmm" else 2.0 ** rng.integers(13, 17, count)
            if op == "linear":
                size["B"] = np.ones(count)
            if kind in ("linear", "bmm"):
                kernels = fp32.products(kind, size["B"], size["M"], size["K"], size["N"])
            else:
                kernels = fp32.vectors(kind, np.full(count, op), size["B"], size["H"])
            kernel_s = np.exp(level) * (gpu.physics(kernels, device).seconds + gpu.floor_s(kind, device).value)
            host = fp32._HOSTS["nvidia"].get(kind, fp32._HOSTS["nvidia"][""])
            latency = np.maximum(kernel_s + host.launch_s, host.call_s)
            tables.append(pa.table({
                "device": [name] * count, "split": ["test"] * (count // 2) + ["train"] * (count - count // 2),
                "op_class": [op_class] * count, "op": [op] * count, "latency_ms": 1e3 * latency,
                **{c: pa.array(values.astype(int)) for c, values in size.items()},
            }))  # fmt: skip
    parquet.write_table(pa.concat_tables(tables), folder / "kernels.parquet")


def node(name, op, inputs, output, fw=(), bw=(), acc=(), prev=(), following=(), section="layer") -> dict[str, str]:
    """One row of opgraphs.parquet."""
    text = {"fw_ops": fw, "bw_ops": bw, "acc_ops": acc, "prev": prev, "next": following, "input_shapes": inputs,
            "output_shape": output}  # fmt: skip
    return {"name": name, "op": op, "section": section, **{key: json.dumps(value) for key, value in text.items()}}


LAYER = [
    node("tokens", "EMBEDDING", [[4, 64]], [4, 64, 256], fw=[["MEM", [[4, 64], [4, 64, 256]]]],
         bw=[["MEM", [[1000, 256]]]], acc=[["VECadd", [1, 256000]]], section="prologue"),
    node("dense", "Linear", [[4, 64, 256]], [4, 64, 512], fw=[["Linear", [256, 256, 512]]],
         bw=[["Linear", [256, 512, 256]], ["Linear", [256, 256, 512]]], acc=[["VECadd", [1, 131072]]]),
    node("size_1", "misc", [[4, 64, 512]], [1]),
    node("gelu", "VECgelu", [[4, 64, 512]], [4, 64, 512], fw=[["VECgelu", [256, 512]]], bw=[["VECgelu", [256, 512]]]),
    node("softmax", "VECsoftmax", [[4, 64, 512]], [4, 64, 512], fw=[["VECsoftmax", [256, 512]]],
         bw=[["VECmul", [256, 512]], ["VECsoftmax", [256, 512]]]),
    node("mlp_dropout", "dropout", [[4, 64, 512]], [4, 64, 512], fw=[["MEM", [[4, 64, 512]] * 2]]),
    node("ln", "VECln", [[4, 64, 512]], [4, 64, 512], fw=[["VECln", [256, 512]]], bw=[["VECmul", [256, 512]]]),
    node("head", "Linear", [[4, 64, 512]], [4, 64, 1000], fw=[["Linear", [256, 512, 1000]]],
         bw=[["Linear", [256, 1000, 512]], ["Linear", [512, 256, 1000]]], section="epilogue"),
]  # fmt: skip


def write_graphs(folder: Path, layers: int = 3, nodes=None) -> Path:
    """opgraphs.parquet with the graph LAYER at inference and training, models.json, and labels of a known law."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = [{"model": "toy", "mode": mode, "seqlen": 64, "batch": 4, "option": "", **one}
            for mode in ("inf", "train") for one in (nodes or LAYER)]  # fmt: skip
    path = folder / "opgraphs.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    (folder / "models.json").write_text(json.dumps({"toy": {"n_layer": layers}}))
    return path


def write_labels(folder: Path, times_ms: dict[tuple[str, str], float]) -> None:
    """e2e_labels.csv: (device, mode) -> milliseconds."""
    with (folder / "e2e_labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow("device,model,mode,seqlen,batch,option,num_layer,e2e_ms,fw_ms,bw_ms".split(","))
        for (device, mode), time in times_ms.items():
            writer.writerow(
                [device, "toy", mode, 64, 4, "", 3, time, time / 3, 2 * time / 3 if mode == "train" else ""]
            )


def write_pack(folder: Path) -> Path:
    """A whole pack with kernels, graphs and labels."""
    write_devices(folder / "devices.csv")
    write_kernels(folder)
    write_graphs(folder)
    write_labels(folder, {("alpha", "inf"): 2.0, ("alpha", "train"): 6.0, ("gamma", "inf"): 2.0})
    return folder
