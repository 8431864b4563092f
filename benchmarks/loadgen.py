"""Our scenarios against MLCommons' LoadGen: exactly on recordings, closely on the same live systems.

(a) LoadGen runs systems of random speed in many configurations. From the latencies that it recorded, our percentiles,
    verdicts, conditions and early-stopping figures must be LoadGen's to the last digit. Bar: no difference.
(b) The same live system under LoadGen and under ours, in turns inside one process, the order drawn anew each time: a
    busy loop of 1 ms and a multi-layer perceptron in torch (one thread); every 25th query is four times as long, so
    that the 99th percentile is the system's and not the machine's. A round is fifteen short runs of each, their
    latencies pooled. Others may use the machine, so a pair of runs counts when the system itself, timed inside, took
    the same time in both (medians within 3 %); how many did is stated, and a scenario without any misses the bar.
    Arrivals of the server scenario are the same to the nanosecond. Ratio ours / LoadGen of p50, p90 and p99 (throughput
    for offline), one per round; the median over rounds with its bootstrap interval. Inside the timer: what each
    generator counts, from due (or issued) to completed. Bar: medians within 5 %.
(c) What each generator adds: latencies of a system that does nothing.

`python benchmarks/loadgen.py [--rounds 5] [--out FILE]`; prints tables and stores them as JSON.
"""

import argparse
import json
import os
import platform
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from gnomon.core.records import to_json
from gnomon.core.stats import bootstrap_interval
from gnomon.devices.host import host
from gnomon.measure.scenarios.loadgen import LoadGenLogs, run_loadgen
from gnomon.measure.scenarios.percentiles import PERCENTILES, percentile
from gnomon.measure.scenarios.recording import Recording
from gnomon.measure.scenarios.result import ScenarioResult, result
from gnomon.measure.scenarios.run import run
from gnomon.measure.scenarios.systems import Queued, Serial
from gnomon.spec.task import Scenario

RESULT = Path(__file__).parent / "results" / "loadgen.json"
BAR = 0.05
WATCHED = ("p50", "p90", "p99")
SAMPLES = 64
LONG_EVERY, LONG = 25, 4
TURNS, QUERIES = 15, 50  # runs of each generator in a round, queries in a run
SAME = 0.03  # by how much the system itself may differ between the two runs of a pair
Work = Callable[[tuple[int, ...]], object]


# --- (a) recordings -----------------------------------------------------------------------------------------------


def configurations() -> list[Scenario]:
    """Scenarios of every kind, valid and invalid, over percentiles, numbers of queries and seeds."""
    found = []
    for queries, p in ((40, 0.9), (64, 0.9), (635, 0.9), (700, 0.9), (1500, 0.95), (300, 0.5), (900, 0.99)):
        found += [Scenario("single-stream", percentile=p, min_queries=queries, min_duration_s=0.001)]
    for queries, p in ((100, 0.99), (662, 0.99), (800, 0.99), (150, 0.9), (60, 0.9)):
        found += [Scenario("multi-stream", percentile=p, min_queries=queries, min_duration_s=0.001)]
    for seed, (queries, p, bound_s) in enumerate(
        (q, p, b) for q in (300, 700, 1200) for p in (0.9, 0.99) for b in (1e-6, 1e-4, 4e-4, 5.0)
    ):
        found += [
            Scenario("server", percentile=p, min_queries=queries, min_duration_s=0.001, latency_bound_s=bound_s,
                     target_qps=8000.0, seed=seed)
        ]  # fmt: skip
    for qps, least_s in ((1e6, 0.001), (2e5, 0.001), (500.0, 0.3)):
        found += [Scenario("offline", target_qps=qps, min_queries=100, min_duration_s=least_s)]
    found += [Scenario("single-stream", min_queries=70, max_queries=90, min_duration_s=0.3)]
    return found


def random_work(seed: int, mean_ns: float = 20_000) -> Work:
    """Busy for an exponentially distributed time."""
    rng = random.Random(seed)
    return lambda samples: spin(round(rng.expovariate(1 / mean_ns)))


def spin(ns: int) -> None:
    """Keep the processor busy for so long by the wall clock."""
    end = time.perf_counter_ns() + ns
    while time.perf_counter_ns() < end:
        pass


def theirs(scenario: Scenario, logs: LoadGenLogs) -> dict[str, Any]:
    """LoadGen's own figures, as its log states them."""
    d = logs.detail
    what = "_percentile_per_query_latency_ns" if scenario.name == "multi-stream" else "_percentile_latency_ns"
    said = d["early_stopping_result"]
    discarded, more = re.search(r"discard (\d+)", said), re.search(r"at least (\d+) more queries", said)
    figures = {
        **{name: d[f"result_{p * 100:.2f}{what}"] for name, p in PERCENTILES.items()},
        "verdict": d["result_validity"],
        "min-duration": d["result_min_duration_met"],
        "min-queries": d["result_min_queries_met"],
    }
    if scenario.name == "server":
        figures |= {
            "latency-bound": d["result_perf_constraints_met"],
            "late queries": d["result_overlatency_query_count"],
            "queries needed": int(more[1]) if more else 0,
        }
    if scenario.name != "offline":
        figures |= {"early-stopping": d["early_stopping_met"], "discarded": int(discarded[1]) if discarded else None}
    if scenario.name in ("single-stream", "multi-stream"):
        key = "early_stopping_latency_ss" if scenario.name == "single-stream" else "early_stopping_latency_ms"
        figures["estimate"] = d[key]
    return figures


def ours(scenario: Scenario, found: ScenarioResult) -> dict[str, Any]:
    """The same figures of our result."""
    early = found.early_stopping
    figures: dict[str, Any] = {name: round(found.latency[name].value * 1e9) for name in PERCENTILES}
    figures["verdict"] = found.verdict
    figures |= {one.name: one.is_met for one in found.conditions}
    if early is not None:
        figures["discarded"] = early.discarded
        if scenario.name == "server":
            figures |= {"late queries": early.over_latency, "queries needed": early.queries_needed}
        else:
            figures["estimate"] = round((early.estimate_s or 0.0) * 1e9)
    return figures


def agreement() -> dict[str, Any]:
    """Figures compared and found different, by scenario."""
    table: dict[str, dict[str, Any]] = {}
    for seed, scenario in enumerate(configurations()):
        with TemporaryDirectory() as folder:
            logs = run_loadgen(scenario, Serial(random_work(seed), batch=8), SAMPLES, Path(folder))
        a, b = theirs(scenario, logs), ours(scenario, result(scenario, logs.recording, sut="random"))
        row = table.setdefault(
            scenario.name, {"runs": 0, "valid": 0, "queries": 0, "figures": 0, "different": 0, "differences": []}
        )
        row["runs"] += 1
        row["valid"] += logs.is_valid
        row["queries"] += len(logs.recording.completed)
        row["figures"] += len(a)
        wrong = {key: [a.get(key), b.get(key)] for key in a.keys() | b.keys() if a.get(key) != b.get(key)}
        row["different"] += len(wrong)
        row["differences"] += [{"scenario": to_json(scenario), **wrong}] if wrong else []
    return table


# --- (b) live systems ---------------------------------------------------------------------------------------------


def busy_loop() -> Callable[[], Work]:
    """Makes works of 1 ms per sample; each counts its calls anew."""

    def make() -> Work:
        calls = iter(range(10**9))
        return lambda samples: spin(10**6 * (LONG if next(calls) % LONG_EVERY == 0 else 1))

    return make


def perceptron() -> Callable[[], Work]:
    """Makes works of a multi-layer perceptron on 8 rows, four times over in every 25th call."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(*[layer for _ in range(8) for layer in (torch.nn.Linear(512, 512), torch.nn.ReLU())])
    model.eval()
    x = torch.randn(8, 512)

    def make() -> Work:
        calls = iter(range(10**9))

        def work(samples: tuple[int, ...]) -> None:
            with torch.inference_mode():
                for _ in range(LONG if next(calls) % LONG_EVERY == 0 else 1):
                    model(x)

        return work

    for _ in range(20):
        make()(())
    return make


def live_scenarios(per_query_s: float) -> list[Scenario]:
    """The scenarios of part (b). server: a fifth of what the system could do, so that queues do not amplify noise."""
    mean_s = per_query_s * (1 + (LONG - 1) / LONG_EVERY)
    return [
        Scenario("single-stream", min_queries=QUERIES, min_duration_s=0.01),
        Scenario("multi-stream", min_queries=QUERIES, min_duration_s=0.01, samples_per_query=4),
        Scenario("server", min_queries=QUERIES, min_duration_s=0.01, target_qps=0.2 / mean_s, latency_bound_s=1.0),
        Scenario("offline", samples_per_query=QUERIES, min_duration_s=0.01),
    ]


def one_run(scenario: Scenario, work: Work, which: str) -> Recording:
    """One recording of a system by LoadGen or by ours; server puts a queue and a thread before the system."""
    with ExitStack() as stack:
        batch = 1 if scenario.name == "offline" else None
        system = stack.enter_context(Queued(work)) if scenario.name == "server" else Serial(work, batch)
        if which == "gnomon":
            return run(scenario, system, SAMPLES)
        folder = stack.enter_context(TemporaryDirectory())
        return run_loadgen(scenario, system, SAMPLES, Path(folder)).recording


class TimedRun(NamedTuple):
    recording: Recording
    service_s: float  # median time that the system itself took for a query (or a batch), timed inside


def timed_run(scenario: Scenario, work: Work, which: str) -> TimedRun:
    """`one_run`, with the time that the system itself took."""
    service_ns: list[int] = []

    def timed(samples: tuple[int, ...]) -> None:
        start = time.perf_counter_ns()
        work(samples)
        service_ns.append(time.perf_counter_ns() - start)

    recording = one_run(scenario, timed, which)
    return TimedRun(recording, statistics.median(service_ns) * 1e-9)


def figures(scenario: Scenario, recordings: Sequence[Recording]) -> dict[str, float]:
    """What is compared: percentiles over the queries of all runs; for offline samples per second."""
    if scenario.name == "offline":
        samples = sum(len(one.sample_latencies) for one in recordings)
        return {"samples/s": samples / (sum(int(one.sample_latencies.max()) for one in recordings) * 1e-9)}
    ordered = np.sort(np.concatenate([one.latencies for one in recordings]))
    return {name: percentile(ordered, PERCENTILES[name]) * 1e-9 for name in WATCHED}


def live(make: Callable[[], Work], rounds: int) -> list[dict[str, Any]]:
    """Rows of one system: scenario, figure, both medians, the ratio with its interval."""
    per_query_s = statistics.median(_timed(make()) for _ in range(100))
    seen: dict[tuple[str, str], dict[str, list[float]]] = {}
    counted = dict.fromkeys((one.name for one in live_scenarios(per_query_s)), 0)
    order, rng = ["gnomon", "loadgen"], random.Random(0)
    for round_ in range(rounds):
        for scenario in live_scenarios(per_query_s):
            kept: dict[str, list[Recording]] = {which: [] for which in order}
            for turn in range(TURNS):
                rng.shuffle(order)
                chosen = replace(scenario, seed=TURNS * round_ + turn)
                pair = {which: timed_run(chosen, make(), which) for which in order}
                if abs(pair["gnomon"].service_s / pair["loadgen"].service_s - 1) <= SAME:
                    counted[scenario.name] += 1
                    for which in order:
                        kept[which].append(pair[which].recording)
            for which, found in kept.items():
                for name, value in figures(scenario, found).items() if found else ():
                    seen.setdefault((scenario.name, name), {}).setdefault(which, []).append(value)
        print(f"  round {round_ + 1} of {rounds}", file=sys.stderr, flush=True)
    rows = []
    for (scenario_name, name), values in seen.items():
        ratios = [a / b for a, b in zip(values["gnomon"], values["loadgen"], strict=True)]
        ratio = bootstrap_interval(ratios)
        rows.append({
            "scenario": scenario_name,
            "figure": name,
            "pairs": TURNS * rounds,
            "pairs_counted": counted[scenario_name],
            "gnomon": statistics.median(values["gnomon"]),
            "loadgen": statistics.median(values["loadgen"]),
            "ratio": to_json(ratio),
            "ratios": ratios,
            "holds": abs(ratio.value - 1) <= BAR,
        })  # fmt: skip
    return rows


def added() -> dict[str, dict[str, float]]:
    """Latencies of a system that does nothing: all that is left is the generator's."""
    scenario = Scenario("single-stream", min_queries=5000, min_duration_s=0.0)
    recordings = {which: one_run(scenario, lambda samples: None, which) for which in ("gnomon", "loadgen")}
    return {which: figures(scenario, [one]) for which, one in recordings.items()}


def _timed(work: Work) -> float:
    work(())  # the long one
    start = time.perf_counter()
    work(())
    return time.perf_counter() - start


# --- the whole ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    load_before = os.getloadavg()[0]
    recordings = agreement()
    systems = {"busy loop, 1 ms": busy_loop(), "perceptron in torch": perceptron()}
    rows = {name: live(make, options.rounds) for name, make in systems.items()}
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": to_json(host()),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("mlcommons-loadgen", "torch", "numpy")},
        "threads": 1,
        "cores": os.cpu_count(),
        "load_average": [load_before, os.getloadavg()[0]],
        "rounds": options.rounds,
        "bar": BAR,
        "recordings": recordings,
        "live": rows,
        "added": added(),
    }
    print(table(document))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    exact = all(row["different"] == 0 for row in recordings.values())
    decided = all(
        {row["scenario"] for row in system} == {one.name for one in live_scenarios(1.0)} for system in rows.values()
    )
    return 0 if exact and decided and all(row["holds"] for system in rows.values() for row in system) else 1


def table(document: dict[str, Any]) -> str:
    """The tables that a reader sees."""
    packages = ", ".join(f"{name} {version}" for name, version in document["packages"].items())
    lines = [
        f"{document['machine']['cpu']}, one thread, Python {document['python']}, {packages}, {document['date']}",
        "load average {:.1f} before, {:.1f} after, on {} cores; this benchmark alone is 1".format(
            *document["load_average"], document["cores"]
        ),
        "",
        "(a) on LoadGen's recordings",
        f"{'scenario':15} {'runs':>5} {'valid':>6} {'queries':>8} {'figures':>8} {'different':>10}",
    ]
    for name, row in document["recordings"].items():
        counts = (row["runs"], row["valid"], row["queries"], row["figures"], row["different"])
        lines.append("{:15} {:5} {:6} {:8} {:8} {:10}".format(name, *counts))
    lines += ["", f"(b) live, {document['rounds']} rounds; ratio ours / LoadGen, bar {document['bar']:.0%}"]
    for system, rows in document["live"].items():
        lines.append(f"{system:24} {'':10} {'ours':>10} {'LoadGen':>10} {'ratio':>7}  interval")
        for row in rows:
            ratio = row["ratio"]
            shown = [f"{row[w]:.0f} /s" if row["figure"] == "samples/s" else f"{row[w] * 1e3:.3f} ms"
                     for w in ("gnomon", "loadgen")]  # fmt: skip
            ends = "one round bounds nothing" if ratio["low"] is None else f"[{ratio['low']:.3f}, {ratio['high']:.3f}]"
            verdict = "" if row["holds"] else "  MISSED"
            name = f"  {row['scenario']}"
            ends += f" {row['pairs_counted']}/{row['pairs']} pairs"
            lines.append(
                f"{name:24} {row['figure']:10} {shown[0]:>10} {shown[1]:>10} {ratio['value']:7.3f}  {ends}{verdict}"
            )
    lines += ["", "(c) a system that does nothing, single-stream"]
    for name, values in document["added"].items():
        lines.append(f"{name:10} " + ", ".join(f"{key} {value * 1e6:.1f} us" for key, value in values.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
