"""What tracing costs, and whether the times of the levels agree: two bars on the shipped tasks, one thread, CPU time.

(a) The model's time in the layer level's run differs from the untraced run by the overhead that the run states: the
    ratio of the two runs, with its interval, and the stated overhead, with its interval, overlap.
(b) Operator times sum to the model's CPU time within 10 %; what the rest is.

`python benchmarks/overhead.py [TASK ...] [--sessions N] [--out FILE]`; prints a table and stores it as JSON.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnomon.core.records import to_json
from gnomon.core.stats import Interval
from gnomon.measure.record import LevelRun, Measurement
from gnomon.measure.run import measure
from gnomon.spec.resolve import resolve

TASKS = ("sentence-embedding", "gpt2-generation-step", "resnet50-classification", "gcn-node-classification")
RESULTS = Path(__file__).parent / "results" / "overhead.json"
_RESAMPLES = 1000


def between_runs(traced: LevelRun, untraced: LevelRun) -> Interval:
    """Median CPU time of the traced calls over that of the run in which nothing was traced, less 1."""
    import numpy as np

    rng = np.random.default_rng(0)

    def drawn(run: LevelRun) -> float:
        sessions = [np.asarray(session.cpu_s) for session in run.sessions]
        chosen = [sessions[i] for i in rng.integers(0, len(sessions), len(sessions))]
        return float(np.median(np.concatenate([one[rng.integers(0, len(one), len(one))] for one in chosen])))

    ratios = [drawn(traced) / drawn(untraced) - 1 for _ in range(_RESAMPLES)]
    low, high = np.percentile(ratios, [2.5, 97.5])
    medians = [statistics.median(t for session in run.sessions for t in session.cpu_s) for run in (traced, untraced)]
    return Interval(medians[0] / medians[1] - 1, float(low), float(high), 0.95, len(untraced.sessions))


def bars(measurement: Measurement) -> dict[str, Any]:
    """Both bars of one task."""
    runs = {run.level: run for run in measurement.levels}
    seen, stated = between_runs(runs["layer"], runs["model"]), runs["layer"].overhead
    if stated is None or stated.low is None or stated.high is None or seen.low is None or seen.high is None:
        raise SystemExit("one session bounds nothing; use --sessions 3 or more")
    if measurement.operators_cover is None:
        raise SystemExit(f"{measurement.task}: {measurement.rest}")
    overlap = max(seen.low, stated.low) <= min(seen.high, stated.high)
    return {
        "task": measurement.task,
        "dims": dict(measurement.dims),
        "cpu_s": to_json(measurement.cpu_latency["p50"]),
        "layer_overhead_between_runs": to_json(seen),
        "layer_overhead_stated": to_json(stated),
        "layer_bar_holds": overlap,
        "operator_overhead_stated": to_json(runs["operator"].overhead),
        "operators_cover": measurement.operators_cover,
        "operator_bar_holds": abs(measurement.operators_cover - 1) <= 0.1,
        "rest": measurement.rest,
        "warnings": list(measurement.warnings),
        "environment": to_json(measurement.environment),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK")
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    results = []
    for name in options.tasks:
        measurement = measure(
            resolve(name), sessions=options.sessions, progress=lambda text: print(text, file=sys.stderr, flush=True)
        )
        results.append(bars(measurement))
        print(_row(results[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(one["layer_bar_holds"] and one["operator_bar_holds"] for one in results) else 1


def _row(one: dict[str, Any]) -> str:
    def percent(interval: dict[str, Any]) -> str:
        return f"{interval['value']:+.1%} [{interval['low']:+.1%}, {interval['high']:+.1%}]"

    verdict = {True: "holds", False: "FAILS"}
    return "\n".join(
        (
            f"{one['task']} {one['dims']}: {one['cpu_s']['value'] * 1e3:.1f} ms CPU per step, one thread",
            f"  layer run against untraced run {percent(one['layer_overhead_between_runs'])}; "
            f"stated overhead {percent(one['layer_overhead_stated'])}: {verdict[one['layer_bar_holds']]}",
            f"  operators cover {one['operators_cover']:.1%} of the CPU time: {verdict[one['operator_bar_holds']]} "
            f"(tracing them costs {percent(one['operator_overhead_stated'])})",
            f"  rest: {one['rest']}",
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
