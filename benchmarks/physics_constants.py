"""Where the constants of `gnomon.forecast.physics` come from, and how its intervals fare on public labels.

Usage: GNOMON_DATA=<folder with gpu-kernels/> python benchmarks/physics_constants.py     (needs pyarrow)

Prints, for each category, the share of the roofline that measured kernels reach (quantiles over fp32 kernels of
seven GPUs and bf16 kernels of three), then the error of the whole-model forecast on every labelled model and
the share of labels inside the nominal 90 % interval. Nothing is fitted here: the constants were read off once.
"""

import csv
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from gnomon.devices.device import Device, Quantity
from gnomon.forecast import predict
from gnomon.forecast.physics import _occupancy, price
from gnomon.forecast.record import Estimate
from gnomon.forecast.work import MatmulShape, Work

TENSOR_OPERANDS = {"add": 3, "mul": 3, "div": 3}  # two inputs and the output; every other operator has one input
CATEGORY = {"softmax": "softmax", "ln": "normalization"}
RESULT = Path(__file__).parent / "results" / "physics_constants.json"


def device_of(row: dict[str, str]) -> Device:
    """A device from a row of devices.csv."""
    peak = float(row["fp32_gflops"] or row["fp32_matrix_gflops"]) * 1e9
    vector = float(row["fp32_vector_gflops"] or row["fp32_gflops"]) * 1e9
    return Device(
        name=row["device"],
        vendor=row["vendor"],
        kind="gpu",
        architecture="",
        peak_flop_s={"float32": Quantity(peak, "csv")},
        vector_flop_s={"float32": Quantity(vector, "csv")},
        memory_bytes=Quantity(float(row["mem_gb"]) * 1e9, "csv"),
        memory_bandwidth_b_s=Quantity(float(row["mem_bw_gbs"]) * 1e9, "csv"),
        units=Quantity(float(row["num_sm"]), "csv"),
        sources={"csv": "devices.csv"},
    )


def work_of(kind: str, dims: list[int]) -> list[Work]:
    """The demand of one entry of an operator graph; MEM entries hold the shapes of all their operands."""
    if kind == "Linear":
        return [matmul(1, *dims)]
    if kind == "BMM":
        return [matmul(*dims)]
    if kind == "MEM":
        moved = 4.0 * sum(float(np.prod(shape)) for shape in dims)
        return [Work("copy", "float32", 0.0, moved)]
    op = kind.removeprefix("VEC")
    elements = float(np.prod(dims))
    return [Work(CATEGORY.get(op, "elementwise"), "float32", elements, 4 * elements * TENSOR_OPERANDS.get(op, 2))]


def matmul(batch: int, m: int, contraction: int, n: int) -> Work:
    b, m_, k, n_ = (float(x) for x in (batch, m, contraction, n))
    moved = 4 * b * (m_ * k + k * n_ + m_ * n_)
    return Work("matmul", "float32", 2 * b * m_ * k * n_, moved, MatmulShape(int(b), int(m_), int(n_), int(k)))


def table(path: Path, columns: list[str]) -> dict[str, np.ndarray]:
    import pyarrow.parquet as pq

    read = pq.read_table(path, columns=columns)
    return {name: np.array(read[name].to_pylist()) for name in columns}


def efficiencies(data: Path, devices: dict[str, Device], rows_each: int = 3000) -> dict[str, dict[str, list[float]]]:
    """Quantiles 5, 50, 95 of the reached share of the limiting peak, on kernels over 100 us, by category and device."""
    columns = ["device", "op_class", "op", "B", "M", "N", "K", "H", "latency_ms"]
    kernels = table(data / "kernels.parquet", columns)
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for name, device in devices.items():
        for op_class in ("matmul", "elementwise", "softmax", "layernorm"):
            rows = np.flatnonzero((kernels["device"] == name) & (kernels["op_class"] == op_class))
            shares: dict[str, list[float]] = defaultdict(list)
            for i in rng.permutation(rows)[:rows_each]:
                get = lambda key, i=i: int(kernels[key][i])  # noqa: E731
                if op_class == "matmul":
                    work = matmul(int(kernels["B"][i] or 1), get("M"), get("N"), get("K"))
                else:
                    work = work_of("VEC" + str(kernels["op"][i]), [get("B"), get("H")])[0]
                compute = (work.flop or 0) / device.peak("float32") / _occupancy(work.matmul, device)
                traffic = work.moved_bytes / device.memory_bandwidth_b_s.value
                if max(compute, traffic) > 100e-6:
                    side = "compute" if compute > traffic else "memory"
                    shares[side].append(max(compute, traffic) / (float(kernels["latency_ms"][i]) / 1e3))
            for side, values in shares.items():
                if len(values) >= 20:
                    found[f"{op_class} {side}"][name] = [
                        round(float(q), 3) for q in np.quantile(values, (0.05, 0.5, 0.95))
                    ]
    return found


def whole_models(data: Path, devices: dict[str, Device]) -> list[dict[str, object]]:
    """Forecast against label for every measured model: the layer is counted as often as the model has it."""
    columns = ["model", "mode", "seqlen", "batch", "option", "fw_ops", "bw_ops", "acc_ops", "section"]
    graphs = table(data / "opgraphs.parquet", columns)
    key = lambda row: (row["model"], row["mode"], int(row["seqlen"]), int(row["batch"]), row["option"] or "")  # noqa: E731
    nodes: dict[tuple, list[int]] = defaultdict(list)
    for i in range(len(graphs["model"])):
        nodes[key({name: graphs[name][i] for name in columns})].append(i)
    results = []
    with (data / "e2e_labels.csv").open() as file:
        labels = [row for row in csv.DictReader(file) if not row["option"]]
    for label in labels:
        if key(label) not in nodes:
            continue  # a label without its operator graph
        device, works = devices[label["device"]], []
        for i in nodes[key(label)]:
            repeat = int(float(label["num_layer"])) if graphs["section"][i] == "layer" else 1
            phases = ("fw_ops",) if label["mode"] == "inf" else ("fw_ops", "bw_ops", "acc_ops")
            for phase in phases:
                for kind, dims in json.loads(graphs[phase][i]):
                    works += work_of(kind, dims) * repeat
        prices = [price(work, device).time for work in works]
        total: Estimate = predict._total(device, prices, [w.category for w in works], [False] * len(works))
        times = {"forecast_s": total.value_s, "low_s": total.low_s, "high_s": total.high_s}
        name = {k: label[k] for k in ("device", "model", "mode", "batch")}
        results.append({**name, "label_s": float(label["e2e_ms"]) / 1e3, **times})
    return results


def main() -> None:
    root = os.environ.get("GNOMON_DATA")
    if not root:
        sys.exit("set GNOMON_DATA to the folder that holds gpu-kernels/")
    data = Path(root) / "gpu-kernels"
    with (data / "devices.csv").open() as file:
        devices = {row["device"]: device_of(row) for row in csv.DictReader(file) if row["role"] == "train"}
    reached = efficiencies(data, devices)
    for category, by_device in sorted(reached.items()):
        for name, (low, median, high) in by_device.items():
            print(f"{category:22} {name:26} 5 % {low:.2f}   median {median:.2f}   95 % {high:.2f}")
    rows = whole_models(data, devices)
    print(
        f"\n{'device':26} {'n':>3} {'mean |error|':>13} {'median':>8} {'worst':>8} {'inside 90 %':>12} {'high/low':>9}"
    )
    for name in [*devices, "all"]:
        chosen = [r for r in rows if name in (r["device"], "all")]
        errors = np.array([abs(r["forecast_s"] / r["label_s"] - 1) for r in chosen])
        inside = np.mean([r["low_s"] <= r["label_s"] <= r["high_s"] for r in chosen])
        width = np.median([r["high_s"] / r["low_s"] for r in chosen])
        figures = f"{errors.mean():13.1%} {np.median(errors):8.1%} {errors.max():8.1%} {inside:12.1%} {width:9.2f}"
        print(f"{name:26} {len(chosen):3} {figures}")
    RESULT.write_text(json.dumps({"efficiencies": reached, "models": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
