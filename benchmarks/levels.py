"""Is the model's time right when all levels are measured? Levelled runs and a one-shot profile beside untraced ones.

For each task, fresh processes of three kinds take turns in random order, one thread, CPU time:

untraced   the model alone, as `gnomon compare` times it: the truth here
levelled   as `gnomon run --level layer --level operator` does it; model time from its untraced calls, and, to see what
           would be read without levels, from the layer run and from the operator run as traced; and the layer run's
           time less the calibrated cost of its hooks
one-shot   the usual way: warm calls, then torch.profiler with shapes and stacks around one call, the call's time;
           compared with the warm calls just before it in the same process, so that only the profiler differs

Bars, per task: (a) the interval of levelled over untraced holds 1 and is no wider than 20 % at either side; (b) the
one-shot profile is off (its interval leaves 0), and further than the levelled time.

`python benchmarks/levels.py [TASK ...] [--sessions N] [--out FILE]`; prints a table and stores it as JSON. Exit code 1:
a bar fails.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gnomon.core.process import call
from gnomon.core.records import from_json, structure, to_json
from gnomon.core.stats import Interval, ratio_test
from gnomon.measure.child import Variant, child_env, environment, now, run_session
from gnomon.measure.levels.trace import Summary
from gnomon.measure.record import Session
from gnomon.spec.resolve import resolve
from gnomon.spec.task import Task

TASKS = ("sentence-embedding", "gpt2-generation-step", "resnet50-classification", "gcn-node-classification")
RESULTS = Path(__file__).parent / "results" / "levels.json"
_CALLS, _TRACED_CALLS, _WARM_CALLS, _SHOTS = 20, 10, 5, 3
_WIDEST = 0.2
_READINGS = (
    "levelled",
    "layer run, cost taken out",
    "layer run as traced",
    "operator run as traced",
    "one-shot profile",
)


def one_shot(arguments: dict[str, Any]) -> dict[str, float]:
    """In a child: CPU seconds of one call under torch.profiler with shapes and stacks, and of the calls before it.

    The middle one of three such profiles: in a single one the machine may have been busy with something else.
    """
    import torch

    from gnomon.workload import program

    task: Task = from_json(arguments["task"], Task)
    torch.set_num_threads(task.threads)
    step = program.build(task).step
    for _ in range(_WARM_CALLS):
        step()
    shots = [_shot(step) for _ in range(_SHOTS)]
    middle = sorted(shots, key=lambda shot: shot[0] / shot[1])[_SHOTS // 2]
    return {"profiled_s": middle[0] * 1e-9, "plain_s": middle[1] * 1e-9}


def _shot(step: Callable[[], Any]) -> tuple[int, float]:
    """CPU nanoseconds of one call under the profiler, and the median of the calls just before it."""
    import torch

    plain = []
    for _ in range(_CALLS // _SHOTS):
        start = time.process_time_ns()
        step()
        plain.append(time.process_time_ns() - start)
    with torch.profiler.profile(record_shapes=True, with_stack=True):
        start = time.process_time_ns()
        step()
        profiled = time.process_time_ns() - start
    return profiled, statistics.median(plain)


def session(task: Task, kind: str, seed: int) -> dict[str, float]:
    """What one fresh process of a kind reads as the model's CPU seconds: reading -> seconds."""
    eager = [Variant("eager")]
    if kind == "one-shot":
        path = {"PYTHONPATH": str(Path(__file__).parent)}  # where the child finds this file
        timeout_s = task.protocol.timeout_s
        found = call("levels:one_shot", {"task": to_json(task)}, timeout_s=timeout_s, env={**child_env(task), **path})
        return {"one-shot profile": found["profiled_s"], "calls before the profile": found["plain_s"]}
    if kind == "untraced":
        result = run_session(task, eager, "times", seed, _CALLS)
        return {"untraced": _median(result["variants"][0]["session"])}
    more = {"levels": ["layer", "operator"], "traced_calls": _TRACED_CALLS}
    result = run_session(task, eager, "levels", seed, _CALLS, more=more)
    layer, operator = result["levels"]["layer"], result["levels"]["operator"]
    root = structure(Summary, layer["summary"]).layers[0]
    return {
        "levelled": _median(result["variants"][0]["session"]),
        "layer run, cost taken out": root.cpu_s,
        "layer run as traced": _median(layer["session"]),
        "operator run as traced": _median(operator["session"]),
    }


def _median(document: Any) -> float:
    return statistics.median(structure(Session, document).cpu_s)


def measured(task: Task, sessions: int) -> dict[str, Any]:
    """Each reading over the untraced time, paired by round, with its interval; and the bars."""
    rng, started_at = random.Random(0), now()
    seconds: dict[str, list[float]] = {}
    for i in range(sessions):
        kinds = ["untraced", "levelled", "one-shot"]
        rng.shuffle(kinds)
        for kind in kinds:
            print(f"{task.name}: round {i + 1} of {sessions}, {kind}", file=sys.stderr, flush=True)
            for reading, cpu_s in session(task, kind, i).items():
                seconds.setdefault(reading, []).append(cpu_s)
    off = {}
    for reading in _READINGS:
        beside = "calls before the profile" if reading == "one-shot profile" else "untraced"
        speedup = ratio_test(seconds[reading], seconds[beside]).speedup  # time of A over time of B
        off[reading] = Interval(speedup.value - 1, *_less_one(speedup), speedup.level, speedup.n)
    levelled, shot = off["levelled"], off["one-shot profile"]
    if levelled.low is None or levelled.high is None:
        raise SystemExit("one session bounds nothing; use --sessions 3 or more")
    reach = max(-levelled.low, levelled.high)
    return {
        "task": task.name,
        "dims": dict(task.dims),
        "untraced_s": statistics.median(seconds["untraced"]),
        "off": to_json(off),
        "levelled_holds": levelled.low <= 0 <= levelled.high and reach <= _WIDEST,
        "one_shot_is_off": shot.low is not None and shot.low > 0 and abs(shot.value) > abs(levelled.value),
        "seconds": seconds,
        "environment": to_json(environment(task, "", started_at)),
    }


def _less_one(speedup: Interval) -> tuple[float | None, float | None]:
    return (None if speedup.low is None else speedup.low - 1, None if speedup.high is None else speedup.high - 1)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK")
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    results = []
    for name in options.tasks:
        results.append(measured(resolve(name), options.sessions))
        print(_row(results[-1]), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(one["levelled_holds"] and one["one_shot_is_off"] for one in results) else 1


def _row(one: dict[str, Any]) -> str:
    lines = [f"{one['task']} {one['dims']}: {one['untraced_s'] * 1e3:.2f} ms CPU per call, untraced"]
    for reading in _READINGS:
        off = one["off"][reading]
        lines.append(f"  {reading:28} {off['value']:+7.1%}  [{off['low']:+.1%}, {off['high']:+.1%}]")
    holds = "holds" if one["levelled_holds"] else "FAILS"
    lines.append(f"  levelled time is the untraced time within its interval: {holds}")
    lines.append(f"  a one-shot profile is off, and further: {'yes' if one['one_shot_is_off'] else 'NO'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
