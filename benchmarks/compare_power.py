"""How small a slowdown `gnomon compare` finds, and how often it finds one that is not there, next to a busy process.

A busy loop is planted behind every call of one of two variants: 0, 2, 5 and 10 % of the call's time, by a calibration
that uses the same comparison. Each trial is a whole `gnomon compare --sessions auto`: fresh processes, added until the
answer is known. The processes are pinned to one core; on another, a process copies memory and computes without end.
Beside it stands what is usually done: 30 calls of A, then 30 of B in one process, compared by Welch's test (of log
times) or called different where their means are more than 2 % apart.
Bars: at 0 % at most 5 % of the trials find a difference; at 5 % at least 90 % of them find the slowdown.

`python benchmarks/compare_power.py [--trials 40] [--out FILE]`; one thread, about 12 s a trial, four trials a round.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gnomon.core.process import JSON, call
from gnomon.core.records import to_json
from gnomon.core.stats import binomial_interval, fast_half_mean, percentile, trimmed_mean, unpaired_ratio_test
from gnomon.measure.child import Variant
from gnomon.measure.compare import auto, compare
from gnomon.measure.record import Comparison
from gnomon.spec.task import Model, Protocol, Quality, Task, Tensor

RESULT = Path(__file__).parent / "results" / "compare_power.json"
PLANTED = (0.0, 0.02, 0.05, 0.10)
BARS = {"false positives": 0.05, "power": 0.9}
_MARGIN = 0.02
_PLAIN_CALLS = 30
_CALIBRATION = 0.2  # the slowdown that calibrates the loop: large, so that its error is small beside it
_CALIBRATION_SESSIONS = 8
_STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean of the faster half": fast_half_mean,
    "median": lambda calls: percentile(calls, 50),
    "mean": statistics.fmean,
    "trimmed mean, 20 %": trimmed_mean,
    "first decile": lambda calls: percentile(calls, 10),
    "minimum": min,
}


def task() -> Task:
    """One transformer layer on 64 tokens: about a millisecond, and nothing but torch to import."""
    x = Tensor("src", "float32", ("B", "L", 128))
    arguments = {"d_model": 128, "nhead": 4, "dim_feedforward": 512, "batch_first": True}
    folders = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return Task(
        name="compare-power", version="1", description="", digest="sha256:none", lock={}, mode="inference",
        dims={"B": 2, "L": 32}, dtype="float32", device="cpu", threads=1, seed=0,
        model=Model("encoder-layer", "1", "python", "torch.nn:TransformerEncoderLayer", arguments, (x,)),
        dataset=None, training=None, quality=Quality(), protocol=Protocol(warmup_s=3.0, timeout_s=120.0),
        env={"PYTHONPATH": folders},
    )  # fmt: skip


def spin(iterations: int) -> None:
    """The planted work."""
    for _ in range(iterations):
        pass


def slowed(program: Any, options: Mapping[str, Any]) -> Any:
    """A variant whose every call spins `options['iterations']` times more."""
    iterations = options["iterations"]

    def step() -> Any:
        outputs = program.step()
        spin(iterations)
        return outputs

    return replace(program, step=step)


def variant(name: str, iterations: int) -> Variant:
    return Variant(name, "compare_power:slowed", {"iterations": iterations})


def calls_in_a_row(arguments: JSON) -> JSON:
    """What is usually done, in a process of its own: 30 calls of A, then 30 of B, for each planted slowdown.

    arguments: task, iterations (one number per slowdown). Returns seconds per call [[of A, of B], ...] by the wall
    clock.
    """
    import torch

    from gnomon.core.records import from_json
    from gnomon.workload.program import build

    torch.set_num_threads(1)
    program = build(from_json(arguments["task"], Task))
    for _ in range(_PLAIN_CALLS):
        program.step()
    found = []
    for iterations in arguments["iterations"]:
        sides = []
        for step in (program.step, slowed(program, {"iterations": iterations}).step):
            times = []
            for _ in range(_PLAIN_CALLS):
                start = time.perf_counter()
                step()
                times.append(time.perf_counter() - start)
            sides.append(times)
        found.append(sides)
    return found


def loop_cost(arguments: JSON) -> JSON:
    """CPU seconds of a call and of one turn of the loop, to start the calibration from."""
    import torch

    from gnomon.core.records import from_json
    from gnomon.workload.program import build

    torch.set_num_threads(1)
    program = build(from_json(arguments["task"], Task))
    calls, turns = [], []
    for _ in range(200):
        start = time.process_time()
        program.step()
        middle = time.process_time()
        spin(2000)
        calls.append(middle - start)
        turns.append((time.process_time() - middle) / 2000)
    return {"call_s": statistics.median(calls), "turn_s": statistics.median(turns)}


def calibrated(subject: Task) -> float:
    """Turns of the loop that slow a call by 100 %, as a comparison sees it."""
    env = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **subject.env}
    cost = call("compare_power:loop_cost", {"task": to_json(subject)}, timeout_s=120, env=env)
    turns = max(1, round(_CALIBRATION * cost["call_s"] / cost["turn_s"]))
    found = compare(subject, [variant("A", 0), variant("B", turns)], sessions=_CALIBRATION_SESSIONS)
    return turns / (1 / found.ratios["B"].speedup.value - 1)


@contextmanager
def busy_neighbour() -> Iterator[str]:
    """A process that copies memory and computes on another core, while this one and its children keep to theirs."""
    code = (
        "import sys, time; import numpy as np\n"
        "a, b = np.ones(1 << 22), np.ones(1 << 22)\n"
        "while True:\n"
        "    end = time.monotonic() + 0.3\n"
        "    while time.monotonic() < end: np.copyto(b, a)\n"
        "    end = time.monotonic() + 0.3\n"
        "    while time.monotonic() < end: sum(range(10000))\n"
    )
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    neighbour = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        if len(cores) > 1:
            os.sched_setaffinity(neighbour.pid, {cores[-1]})
            os.sched_setaffinity(0, set(cores[:-1]) if len(cores) > 2 else {cores[0]})
        yield f"core {cores[-1]}, measured on the others" if len(cores) > 1 else "not pinned: no second core to pin to"
    finally:
        neighbour.kill()
        neighbour.wait()
        if cores:
            os.sched_setaffinity(0, cores)


def plain_answers(a: Sequence[float], b: Sequence[float]) -> dict[str, bool]:
    """Whether the usual ways call B different from A: by Welch's test at 5 %, or by means that are 2 % apart."""
    return {
        "30 calls each, Welch's test": unpaired_ratio_test(a, b).verdict != "undecided",
        "means of 30 calls, beyond 2 %": abs(statistics.fmean(b) / statistics.fmean(a) - 1) > _MARGIN,
    }


def summary(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per planted slowdown: how often each verdict came, and how often a difference was found at all."""
    rows = []
    for planted in sorted({one["planted"] for one in trials}):
        mine = [one for one in trials if one["planted"] == planted]
        verdicts = Counter(one["verdict"] for one in mine)
        different = verdicts["faster"] + verdicts["slower"]
        plain = {name: sum(one["plain"][name] for one in mine) for name in mine[0]["plain"]}
        rows.append({
            "planted": planted, "trials": len(mine), "verdicts": dict(verdicts),
            "different": to_json(binomial_interval(different, len(mine))),
            "slower": to_json(binomial_interval(verdicts["slower"], len(mine))),
            "plain": {name: to_json(binomial_interval(count, len(mine))) for name, count in plain.items()},
            "measured": math.exp(statistics.fmean(math.log(one["slowdown"]) for one in mine)) - 1,
            "sessions": statistics.fmean(one["sessions"] for one in mine),
            "seconds": statistics.fmean(one["seconds"] for one in mine),
        })  # fmt: skip
    return rows


def spreads(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """What one session's log ratio of two equal variants spreads by, for each clock and statistic: the less the better.

    bias: its mean, with the error of that mean.
    """
    rows = []
    for clock in ("cpu", "wall"):
        for name, typical in _STATISTICS.items():
            logs = []
            for one in comparisons:
                a, b = one.variants
                for left, right in zip(a.sessions, b.sessions, strict=True):
                    times = [left.cpu_s, right.cpu_s] if clock == "cpu" else [left.wall_s, right.wall_s]
                    logs.append(math.log(typical(times[1]) / typical(times[0])))
            spread = statistics.stdev(logs)
            rows.append({
                "clock": clock, "statistic": name, "spread": spread, "bias": statistics.fmean(logs),
                "bias_error": spread / math.sqrt(len(logs)), "sessions": len(logs),
            })  # fmt: skip
    return rows


def run(trials: int) -> dict[str, Any]:
    """All trials, the slowdowns in turns, and what the usual ways say in as many processes."""
    subject, done, equal, started = task(), [], [], time.monotonic()
    with busy_neighbour() as where:
        per_whole = calibrated(subject)
        turns = [round(planted * per_whole) for planted in PLANTED]
        env = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **subject.env}
        for i in range(trials):
            plain = call("compare_power:calls_in_a_row", {"task": to_json(subject), "iterations": turns},
                         timeout_s=120, env=env)  # fmt: skip
            for planted, iterations, sides in zip(PLANTED, turns, plain, strict=True):
                start = time.monotonic()
                found = compare(subject, [variant("A", 0), variant("B", iterations)], sessions=auto(), margin=_MARGIN)
                if planted == 0:
                    equal.append(found)
                test = found.ratios["B"]
                done.append({
                    "planted": planted, "verdict": test.verdict, "slowdown": 1 / test.speedup.value,
                    "sessions": test.speedup.n, "seconds": time.monotonic() - start, "detectable": test.detectable,
                    "plain": plain_answers(*sides), "warnings": list(found.warnings),
                })  # fmt: skip
                print(f"trial {i + 1} of {trials}, {planted:.0%} planted: {test.verdict}, {test.speedup.n} sessions, "
                      f"{done[-1]['seconds']:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
    rows = summary(done)
    by_planted = {row["planted"]: row for row in rows}
    return {
        "trials_each": trials, "minutes": (time.monotonic() - started) / 60, "neighbour": where, "margin": _MARGIN,
        "turns_per_percent": per_whole / 100, "environment": to_json(equal[0].environment), "rows": rows,
        "spreads": spreads(equal), "trials": done,
        "bars": {
            "false positives": by_planted[0.0]["different"]["value"] <= BARS["false positives"],
            "power": by_planted[0.05]["slower"]["value"] >= BARS["power"],
        },
    }  # fmt: skip


def table(document: Mapping[str, Any]) -> str:
    """The curve as text: share of trials that find a difference, with 95 % intervals, ours and the usual ways."""

    def share(one: Mapping[str, float]) -> str:
        return f"{one['value']:4.0%} [{one['low']:3.0%}, {one['high']:4.0%}]"

    ways = list(document["rows"][0]["plain"])
    lines = [f"{'planted':>8} {'measured':>9} {'sessions':>9} {'s each':>7}  {'gnomon compare':>17}  "
             + "  ".join(f"{way:>31}" for way in ways)]  # fmt: skip
    for row in document["rows"]:
        cells = "  ".join(f"{share(row['plain'][way]):>31}" for way in ways)
        lines.append(f"{row['planted']:8.0%} {row['measured']:+9.1%} {row['sessions']:9.1f} {row['seconds']:7.1f}  "
                     f"{share(row['different']):>17}  {cells}")  # fmt: skip
    for row in document["rows"]:
        told = ", ".join(f"{verdict} {count}" for verdict, count in sorted(row["verdicts"].items()))
        lines.append(f"{row['planted']:.0%} planted: {told}")
    lines.append("spread of one session's ratio of two equal variants (and its mean, which should be 0):")
    for one in document["spreads"]:
        lines.append(f"  {one['clock']:4} {one['statistic']:24} {one['spread']:6.2%}   {one['bias']:+.2%} "
                     f"± {one['bias_error']:.2%}")  # fmt: skip
    for name, bar in BARS.items():
        lines.append(f"{name} {'at most' if 'false' in name else 'at least'} {bar:.0%}: "
                     f"{'holds' if document['bars'][name] else 'FAILS'}")  # fmt: skip
    lines.append(f"{document['trials_each']} trials each in {document['minutes']:.0f} minutes; neighbour on "
                 f"{document['neighbour']}")  # fmt: skip
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40, help="for each slowdown")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    document = run(options.trials)
    print(table(document))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(document["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
