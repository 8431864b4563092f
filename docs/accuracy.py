"""Writes docs/accuracy.md from stored results: `python docs/accuracy.py`. A test keeps the page up to date."""

import json
from pathlib import Path

from gnomon.core.records import from_json
from gnomon.forecast.evaluate import Evaluation
from gnomon.report.accuracy import ablation, calibrated_cpu, markdown

PAGE = Path(__file__).with_name("accuracy.md")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
HEAD = """# How accurate forecasts are

Written from stored results by `python docs/accuracy.py`; no figure is typed. To make them again on a pack of
measurements:

```bash
gnomon forecast evaluate --pack gpu-kernels --leave-one-out --json benchmarks/results/forecast_accuracy.json
python benchmarks/forecast_ablation.py
```

Every GPU is judged by a predictor that has never seen it: what was learnt from it is taken out first, for the interval
too. Errors are |forecast / measured - 1|. Kernels are judged on shapes of real models where the pack has them. The fp32
kernels and models come from NeuSight's artifact, the kernels of lower precision from aiconfigurator-core (see NOTICE).
A label is doubted for what the labels themselves say, never for how far the forecast is off; both figures are shown.
"""


def page() -> str:
    """The whole page, as MyST."""
    accuracy = json.loads((RESULTS / "forecast_accuracy.json").read_text("utf-8"))
    compared = json.loads((RESULTS / "forecast_ablation.json").read_text("utf-8"))
    evaluation: Evaluation = from_json(accuracy, Evaluation)
    on_cpu = json.loads((RESULTS / "forecast_cpu.json").read_text("utf-8"))
    return f"{HEAD}\n{ablation(compared)}\n{calibrated_cpu(on_cpu)}\n{markdown(evaluation)}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.name}")
