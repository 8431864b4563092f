"""Forecast against measurement on this machine's CPU, before and after `gnomon calibrate --device cpu --budget 2m`.

Models that no probe knows (`cpu_models.py`), one thread, CPU time. Each model is measured in fresh processes that take
turns (round 1 of all, round 2 of all ...); inside, a call counts when a reference kernel ran as usual before and after
it, as for the probes, and so does a process among all of them. Rounds go on until each model has been seen in the
machine's usual state (that of the calibration), at most three times as many as asked for. What was only ever seen while
the reference ran 1.3 times slower is divided by 1.3, as probes are; the times as they were are shown beside. Build,
imports and first calls are not in the times; a training step is forward, backward, Adam.
Bars: mean error at most 35 % uncalibrated and 12 % calibrated.

`python benchmarks/forecast_cpu.py [--budget 2m] [--rounds 2] [--seconds 8] [--out FILE]`
"""

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gnomon.core.process import JSON, call
from gnomon.core.records import to_json
from gnomon.core.units import format_seconds, parse_seconds

RESULT = Path(__file__).parent / "results" / "forecast_cpu.json"
BARS = {"uncalibrated": 0.35, "calibrated": 0.12}


def session(arguments: JSON) -> JSON:
    """One model in a process of its own: its time and how disturbed the machine was."""
    import importlib

    import torch

    from gnomon.measure.probes.timing import CpuStopwatch, Rounds

    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = importlib.import_module(arguments["module"]).MODELS[arguments["name"]]
    model, inputs = case.build()
    a, out = torch.full((256, 256), 0.5), torch.empty(256, 256)
    if case.training:
        model.train()
        optimizer = torch.optim.Adam(model.parameters())

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            model(*inputs).sum().backward()
            optimizer.step()
    else:
        model.eval()

        def step() -> None:
            with torch.no_grad():
                model(*inputs)

    step()
    rounds = Rounds({"model": lambda: step}, lambda: torch.mm(a, a, out=out), CpuStopwatch())
    (reading,) = rounds.run(arguments["seconds"])
    return to_json(reading)


def graph_of(name: str, case: Any) -> Any:
    """The operators of one step."""
    from gnomon.workload.capture import capture

    model, inputs = case.build()
    if case.training:
        return capture(model, inputs, name=name, mode="training", optimizer="adam", loss="sum")
    return capture(model.eval(), inputs, name=name)


def measure(models: Sequence[str], module: str, rounds: int, seconds: float, usual_s: float) -> dict[str, list[Any]]:
    """Readings of every model, one per round. usual_s: the reference's time in the usual state."""
    readings: dict[str, list[Any]] = {name: [] for name in models}
    env = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    for i in range(3 * rounds):
        for name in models:
            if i >= rounds and calm(readings[name], usual_s):
                continue
            arguments = {"module": module, "name": name, "seconds": seconds}
            readings[name].append(call(f"{Path(__file__).stem}:session", arguments, timeout_s=240, env=env))
            print(f"round {i + 1}: {name} {format_seconds(readings[name][-1]['seconds'])}", file=sys.stderr, flush=True)
    return readings


def calm(readings: Sequence[Any], usual_s: float) -> list[Any]:
    """The rounds in which the machine was in its usual state."""
    from gnomon.measure.probes.timing import is_calm

    return [one for one in readings if is_calm(one["reference_s"], usual_s)]


def measured_s(readings: Sequence[Any], usual_s: float) -> float:
    """The median of the rounds in the usual state; without one, the nearest, scaled to it."""
    counted = calm(readings, usual_s)
    if counted:
        return statistics.median(one["seconds"] for one in counted)
    nearest = min(readings, key=lambda one: abs(math.log(one["reference_s"] / usual_s)))
    return float(nearest["seconds"] * usual_s / nearest["reference_s"])


def row(name: str, seconds: float, plain: Any, calibrated: Any, readings: Sequence[Any]) -> dict[str, Any]:
    def judged(result: Any) -> dict[str, Any]:
        total = result.total
        return {
            "seconds": total.value_s, "low_s": total.low_s, "high_s": total.high_s,
            "error": abs(total.value_s / seconds - 1), "holds": total.low_s <= seconds <= total.high_s,
        }  # fmt: skip

    return {
        "model": name, "measured_s": seconds, "operators": len(plain.ops), "readings": list(readings),
        "as_seen_s": statistics.median(one["seconds"] for one in readings),
        "uncalibrated": judged(plain), "calibrated": judged(calibrated),
    }  # fmt: skip


def agreement(rows: Sequence[Any], usual_s: float) -> dict[str, float]:
    """How far the measurements agree with themselves: means over models of what rounds of one model differ by, and of
    the error at which a forecast that knew their true mean would still be scored.

    Rounds in the usual state where there are two, else all of them, scaled to it as `measured_s` does.
    """
    from gnomon.measure.spread import of_times

    spreads = []
    for one in rows:
        times = [r["seconds"] for r in calm(one["readings"], usual_s)]
        if len(times) < 2:
            times = [r["seconds"] * usual_s / r["reference_s"] for r in one["readings"]]
        spreads.append(of_times(times, "cpu"))
    known = [one for one in spreads if one.floor is not None]
    return {
        "models": len(known),
        "between": statistics.fmean(one.between.value for one in known),
        "floor": statistics.fmean(one.floor or 0.0 for one in known),
    }


def floor_line(found: dict[str, float]) -> str:
    """The least mean error that any predictor can be scored, as text."""
    return (
        f"rounds of one model differ by {found['between']:.1%} (mean of {found['models']} models): against them no "
        f"predictor can be scored below a mean error of {found['floor']:.1%}"
    )


def summary(rows: Sequence[Any], which: str) -> dict[str, float]:
    errors = sorted(one[which]["error"] for one in rows)
    return {
        "mean": statistics.fmean(errors), "median": statistics.median(errors), "worst": errors[-1],
        "coverage": statistics.fmean(one[which]["holds"] for one in rows),
    }  # fmt: skip


def table(rows: Sequence[Any]) -> str:
    lines = [f"{'model':22} {'as seen':>9} {'usual':>9}  {'uncalibrated':>24}  {'calibrated':>24}"]
    for one in rows:
        cells = []
        for which in ("uncalibrated", "calibrated"):
            it = one[which]
            ratio = it["seconds"] / one["measured_s"] - 1
            cells.append(f"{format_seconds(it['seconds']):>9} {ratio:+7.1%} {'in' if it['holds'] else 'OUT':>5} ")
        times = f"{format_seconds(one['as_seen_s']):>9} {format_seconds(one['measured_s']):>9}"
        lines.append(f"{one['model']:22} {times}  {cells[0]}  {cells[1]}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="2m", help="of the calibration")
    parser.add_argument("--rounds", type=int, default=2, help="fresh processes per model")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each of them")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    document = run("cpu_models", parse_seconds(options.budget), options.rounds, options.seconds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(document["bars"].values()) else 1


def run(module: str, budget_s: float, rounds: int, seconds: float) -> dict[str, Any]:
    """Calibrate, measure, forecast; prints the table. module: where MODELS is."""
    import importlib

    from gnomon import pipeline
    from gnomon.forecast.predict import forecast
    from gnomon.forecast.predictors import Physics
    from gnomon.store.store import open_store

    cases = importlib.import_module(module).MODELS
    with TemporaryDirectory() as folder, open_store(f"{folder}/results.db").begin("calibrate", {}) as store:
        calibration = pipeline.calibrate("cpu", budget_s, store, progress=lambda text: print(text, file=sys.stderr))
    readings = measure(list(cases), module, rounds, seconds, calibration.reference_s)
    rows, usual_s = [], calibration.reference_s
    for name, case in cases.items():
        graph = graph_of(name, case)
        plain = forecast(graph, calibration.device, predictor=Physics())
        calibrated = forecast(graph, calibration.device, calibration=calibration)
        rows.append(row(name, measured_s(readings[name], usual_s), plain, calibrated, readings[name]))
    print(table(rows))
    summaries = {which: summary(rows, which) for which in BARS}
    for which, one in summaries.items():
        print(
            f"{which}: mean error {one['mean']:.1%} (bar {BARS[which]:.0%}), median {one['median']:.1%}, worst "
            f"{one['worst']:.1%}; {one['coverage']:.0%} of the 90 % intervals hold the measurement"
        )
    agreed = agreement(rows, usual_s)
    print(floor_line(agreed))
    disturbed = [name for name in cases if not calm(readings[name], usual_s)]
    warnings = list(calibration.warnings)
    if disturbed:
        warnings.append(f"never seen in the usual state, so scaled by the reference: {', '.join(disturbed)}")
    for warning in warnings:
        print(warning)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "device": calibration.device.name, "threads": 1,
        "clock": "process CPU time", "versions": dict(calibration.versions), "allocator": calibration.allocator,
        "reference_s": usual_s, "rounds": rounds, "seconds_each": seconds, "calibration_budget_s": budget_s,
        "kernels": len(calibration.samples), "factors": to_json(calibration.factors), "host": to_json(calibration.host),
        "warnings": warnings, "rows": rows, "summary": summaries, "agreement": agreed,
        "bars": {which: one["mean"] <= BARS[which] for which, one in summaries.items()},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
