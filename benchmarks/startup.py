"""Bars: `gnomon --help` under 0.3 s CPU; `gnomon forecast` of a 24-layer model under 3 s CPU after torch is imported.

Usage: python benchmarks/startup.py
"""

import json
import platform
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "startup.json"
CONFIG = {
    "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 1024, "num_hidden_layers": 24,
    "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 30522,
}  # fmt: skip


def cpu_of(command: list[str]) -> float:
    """CPU seconds (user and system) of a whole process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def least_and_median(command: list[str], runs: int) -> tuple[float, float]:
    times = sorted(cpu_of(command) for _ in range(runs))
    return times[0], times[len(times) // 2]


def main() -> None:
    import torch

    gnomon = [sys.executable, "-m", "gnomon"]
    with tempfile.TemporaryDirectory() as folder:
        config, store = Path(folder) / "config.json", ["--store", f"{folder}/results.db"]
        config.write_text(json.dumps(CONFIG))
        cases = {
            "help": [*gnomon, "--help"],
            "import torch": [sys.executable, "-c", "import torch"],
            "import torch, transformers' BertModel": [
                sys.executable,
                "-c",
                "import torch; from transformers import BertModel",
            ],
            "forecast, 24 layers, 1 device": [*gnomon, "forecast", str(config), "--device", "H100-SXM", *store],
            "forecast, 24 layers, catalogue": [*gnomon, "forecast", str(config), *store],
        }
        figures = {name: least_and_median(command, 3) for name, command in cases.items()}
    for name, (least, median) in figures.items():
        print(f"{name:40} least {least:6.3f} s   median {median:6.3f} s CPU")
    net = figures["forecast, 24 layers, 1 device"][1] - figures["import torch"][1]
    library = figures["import torch, transformers' BertModel"][1] - figures["import torch"][1]
    passed = {"help under 0.3 s": figures["help"][1] < 0.3, "forecast under 3 s after torch": net < 3}
    print(f"forecast without the import of torch: {net:.3f} s CPU, of which Transformers' import takes {library:.3f} s")
    for bar, holds in passed.items():
        print(f"{'holds' if holds else 'MISSED'}: {bar}")
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version(),
        "torch": torch.__version__, "machine": platform.processor() or platform.machine(), "clock": "process CPU time",
        "seconds": {name: {"least": a, "median": b} for name, (a, b) in figures.items()}, "bars": passed,
    }  # fmt: skip
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
