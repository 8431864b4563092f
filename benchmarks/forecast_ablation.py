"""What each idea of the forecaster is worth: ours, ours without its fit, and published designs on the same rows.

Leave one GPU out: for every GPU of the pack each predictor is fitted on the kernels of all the others, then judged on
the kernels of that GPU (shapes of real models where the pack has them) and on its whole-model labels. All are handed
the same graphs, bytes, FLOP and host model, so a row compares how kernels are priced. The baselines are our own
implementations, trained less than their authors did (see `training` in the result); none is the authors' program.

`python benchmarks/forecast_ablation.py [--pack DIR] [--quick] [--out FILE]`; the pack is $GNOMON_DATA/gpu-kernels when
not given. --quick trains tiny networks, to see that it runs; its figures say nothing and are stored only with --out.
"""

import argparse
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gnomon.core.records import to_json
from gnomon.devices.device import Device
from gnomon.forecast import evaluate, fit, opgraphs
from gnomon.forecast.baselines.fitted import FittedBaseline, Training, fit_baseline
from gnomon.forecast.baselines.neusight import TILES
from gnomon.forecast.evaluate import Accuracy, Choose, ModelError
from gnomon.forecast.model import Model
from gnomon.forecast.pack.devices import read_devices
from gnomon.forecast.pack.fp32 import read_kernels
from gnomon.forecast.pack.samples import Samples
from gnomon.forecast.predictors import PREDICTORS, Gnomon, Physics

RESULT = Path(__file__).parent / "results" / "forecast_ablation.json"
ROWS = ("roofline", "linear-regression", "habitat", "neusight", "physics", "gnomon")
FITTED = ("linear-regression", "habitat", "neusight")
QUICK = Training(rows=400, epochs=2, batch=64, width=16, depth=3)
FILES = ("kernels.parquet", "op_labels.parquet", "e2e_labels.csv", "opgraphs.parquet", "devices.csv")
Judge = Callable[[Choose], list[ModelError]]


class Judged(NamedTuple):
    """One predictor over all GPUs, each time fitted without the GPU that it was judged on."""

    kernels: list[Accuracy]
    models: list[ModelError]
    cpu_s: float


def without(name: str, samples: Sequence[Samples], left: str, model: Model, training: Training | None) -> Physics:
    """The predictor `name` as if nobody had measured the GPU `left`."""
    others = [one for one in samples if one.device.name != left]
    if name == "gnomon":
        kept = fit.without(model, samples, left)
        assert left not in kept.devices, f"{left} is in the fit of gnomon"
        return Gnomon(kept)
    if name in FITTED:
        baseline: FittedBaseline = fit_baseline(name, others, training)
        assert left not in baseline.fit.devices, f"{left} is in the fit of {name}"
        return baseline
    made: Physics = PREDICTORS.get(name)()
    return made


def judge(name: str, samples: Sequence[Samples], models: Judge, model: Model, training: Training | None) -> Judged:
    """Errors of one predictor on the kernels of every GPU and on the labels of whole models."""
    start = time.process_time()

    @functools.cache
    def of(left: str) -> Physics:
        return without(name, samples, left, model, training)

    def choose(device: Device) -> Physics:
        return of(device.name)

    kernels = evaluate.judge_kernels(samples, choose, lambda device: False)
    return Judged(kernels, models(choose), time.process_time() - start)


def ablation(samples: Sequence[Samples], models: Judge, training: Training | None = None) -> dict[str, Judged]:
    """Every row of the table. models: judges on whole models. training: None: each its own."""
    model = Model(fit.experts(samples))
    found = {}
    for name in ROWS:
        found[name] = judge(name, samples, models, model, training)
        print(f"{name}: {_progress(found[name])}", file=sys.stderr, flush=True)
    return found


def _progress(judged: Judged) -> str:
    mean = np.mean([one.error for one in judged.models])
    return f"whole models {100 * mean:.1f} % off, {judged.cpu_s:.0f} s of CPU time"


# What is printed and stored -------------------------------------------------------------------------------------------


def summary(errors: Sequence[float]) -> dict[str, float]:
    return {"n": len(errors), "mean": float(np.mean(errors)), "median": float(np.median(errors)),
            "worst": float(np.max(errors))}  # fmt: skip


def document(judged: Judged) -> dict[str, Any]:
    """One row with everything behind it. sound: labels that nobody doubts, see `evaluate`."""
    devices = list(dict.fromkeys(one.device for one in judged.kernels))
    kinds = list(dict.fromkeys(one.what for one in judged.kernels))
    labels = {device: [m.error for m in judged.models if m.device == device] for device in devices}
    by_kind = {kind: {one.device: one for one in judged.kernels if one.what == kind} for kind in kinds}
    return {
        "e2e": summary([m.error for m in judged.models]),
        "e2e_sound": summary([m.error for m in judged.models if not m.defect]),
        "e2e_by_device": {device: summary(errors) for device, errors in labels.items() if errors},
        "kernels": {
            kind: {
                "mean_over_devices": float(np.mean([one.mean for one in members.values()])),
                "by_device": {
                    device: {"n": one.count, "mean": one.mean, "median": one.median, "worst": one.worst}
                    for device, one in members.items()
                },
            }
            for kind, members in by_kind.items()
        },
        "cpu_s": judged.cpu_s,
    }


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Absolute errors in per cent: whole models, then kernels by kind (mean over GPUs), then whole models by GPU."""
    first = next(iter(rows.values()))
    kinds, devices = list(first["kernels"]), list(first["e2e_by_device"])
    heads = ["e2e mean", "median", "worst", "sound mean", *kinds, *devices]
    lines = [f"{'predictor':20}" + "".join(f"{_short(head):>11}" for head in heads)]
    for name, row in rows.items():
        numbers = [row["e2e"]["mean"], row["e2e"]["median"], row["e2e"]["worst"], row["e2e_sound"]["mean"]]
        numbers += [row["kernels"][kind]["mean_over_devices"] for kind in kinds]
        numbers += [row["e2e_by_device"][device]["mean"] for device in devices]
        lines.append(f"{name:20}" + "".join(f"{100 * number:11.1f}" for number in numbers))
    return "\n".join(lines)


def _short(head: str) -> str:
    """'MI100' of 'AMD Instinct MI100', 'A100' of 'NVIDIA A100-PCIE-40GB'."""
    words = head.split()
    return (words[-1].split("-")[0] if words[0] in ("AMD", "NVIDIA", "Tesla") else head)[:10]


def about(pack: Path, samples: Sequence[Samples], training: Training | None, cpu_s: float) -> dict[str, Any]:
    import torch

    return {
        "protocol": "leave one GPU out: fitted on the kernels of the other GPUs, judged on its test shapes and labels",
        "devices": sorted({one.device.name for one in samples}),
        "training": {name: to_json(training or PREDICTORS.get(name).training) for name in FITTED},
        "gnomon_rows_per_gpu_and_kind": fit.ROWS,
        "pack": {name: hashlib.sha256((pack / name).read_bytes()).hexdigest() for name in FILES},
        "versions": {
            "python": sys.version.split()[0],
            **{name: metadata.version(name) for name in ("gnomon", "torch", "numpy", "lightgbm")},
        },
        "torch_threads": torch.get_num_threads(),
        "cpu_s": cpu_s,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, default=Path(os.environ.get("GNOMON_DATA", "")) / "gpu-kernels")
    parser.add_argument("--quick", action="store_true", help="tiny networks: does it run?")
    parser.add_argument("--out", type=Path, help=f"where the figures are stored; {RESULT.name} unless --quick")
    options = parser.parse_args(arguments)
    training = QUICK if options.quick else None
    pack = options.pack
    devices = read_devices(pack / "devices.csv")
    samples = list(read_kernels(pack, devices, TILES))
    graphs = opgraphs.read(pack / "opgraphs.parquet")

    def models(choose: Choose) -> list[ModelError]:
        return evaluate.judge_models(pack, graphs, devices, choose, lambda device: False)

    import torch

    torch.set_num_threads(1)  # so that the same seed gives the same weights, whatever the machine
    start = time.process_time()
    rows = {name: document(judged) for name, judged in ablation(samples, models, training).items()}
    print(table(rows))
    out = options.out or (None if options.quick else RESULT)
    if out is not None:
        found = {"about": about(pack, samples, training, time.process_time() - start), "predictors": rows}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
