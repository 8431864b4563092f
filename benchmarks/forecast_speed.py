"""The bars of a forecast's speed: 24 layers on 20 devices in a second of CPU time, a sweep of 1,000 points in thirty.

Run `python benchmarks/forecast_speed.py`; it prints the figures, writes them to benchmarks/results/forecast_speed.json
and exits with 1 when a bar is missed. One thread, CPU time of the process, imports apart. The forecast starts from a
captured graph, whose capture is shown apart; the sweep starts from the task and captures what it needs.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers

from gnomon.devices import catalogue
from gnomon.forecast.predict import Forecaster
from gnomon.forecast.sweep import Sizes, sweep
from gnomon.spec.task import Model, Protocol, Quality, Task, Tensor
from gnomon.workload.capture import capture_task

RESULTS = Path(__file__).parent / "results" / "forecast_speed.json"
REPEATS = 5
BARS = {"forecast_20_devices_s": 1.0, "sweep_1000_points_s": 30.0}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
DTYPES = ("float32", "tf32", "float16", "bfloat16", "float8")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


def task(at: Sizes) -> Task:
    """BERT-large at 512 tokens; `Sizes` has no length here."""
    inputs = (Tensor("input_ids", "int64", ("B", "L"), "integers", 0, 30522),)
    model = Model("bert-large", "1", "huggingface", "BertModel", LARGE, inputs)
    dims = {"B": at.batch, "L": 512}
    return Task(
        "bert-large", "1", "", "", {}, "inference", dims, at.dtype or "float32", "cpu", 1, 0, model, None, None,
        Quality(), Protocol(),
    )  # fmt: skip


def cpu_s(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main() -> int:
    torch.set_num_threads(1)
    devices = catalogue.every()
    twenty = devices[:20]
    capture_s, graph = cpu_s(lambda: capture_task(task(Sizes(8, 512, "float32"))))
    first_s, _ = cpu_s(lambda: _forecast(graph, twenty))
    again = [cpu_s(lambda: _forecast(graph, twenty))[0] for _ in range(REPEATS)]
    sweep_s, swept = cpu_s(lambda: sweep(lambda at: capture_task(task(at)), devices, batches=BATCHES, dtypes=DTYPES))
    assert len(swept.points) == len(devices) * len(DTYPES) * len(BATCHES)
    per_1000 = sweep_s * 1000 / len(swept.points)
    found = {
        "capture_s": capture_s,
        "operators": len(graph.ops),
        "forecast_20_devices_s": first_s,
        "forecast_20_devices_again_s": [min(again), statistics.median(again), max(again)],
        "sweep_points": len(swept.points),
        "sweep_captures": swept.captured,
        "sweep_s": sweep_s,
        "sweep_1000_points_s": per_1000,
    }
    missed = [name for name, bar in BARS.items() if found[name] >= bar]
    document = {
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "predictor": swept.predictor,
        "bars": BARS,
        "figures": found,
        "missed": missed,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    for name, value in found.items():
        bar = f"   bar {BARS[name]:g}" if name in BARS else ""
        print(f"{name:30} {_shown(value)}{bar}{'   MISSED' if name in missed else ''}")
    return 1 if missed else 0


def _forecast(graph: Any, devices: Any) -> list[Any]:
    forecaster = Forecaster(graph)
    return [forecaster.on(device) for device in devices]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{one:.3f}" for one in value) + " (least, median, largest)"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
