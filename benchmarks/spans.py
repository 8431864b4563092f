"""What recording a span costs in a hot loop, beside a span of the OpenTelemetry SDK, and how fast a trace is written.

(a) begin and end of a `Recorder` take at most 1 us together.
(b) Recording 100,000 nested spans, turning them into records and writing them as a Chrome trace takes at most 2 s.

The variants take turns in random order, with the garbage collector off; CPU time of the process, least and median over
rounds. The OpenTelemetry span goes to a processor that throws it away: what is compared is recording, not export.
Which processes shared the machine is not known here: two empty calls and two readings of the clock are timed beside.

`python benchmarks/spans.py [--rounds N] [--out FILE]`; prints a table and stores it as JSON. Exit code 1: a bar fails.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gnomon.core.records import to_json
from gnomon.devices.host import host
from gnomon.measure.record import Trace
from gnomon.measure.recorder import Recorder
from gnomon.report.trace import write_trace

RESULTS = Path(__file__).parent / "results" / "spans.json"
_SPANS = 2_000
_MOST_S = {"begin and end": 1e-6, "record 100,000 spans and write the trace": 2.0}


def candidates() -> dict[str, Callable[[], None]]:
    """Name -> a loop over `_SPANS` spans."""
    recorder, scoped = Recorder(), Recorder()

    def pairs() -> None:
        recorder.clear()
        begin, end = recorder.begin, recorder.end
        for _ in range(_SPANS):
            begin("span")
            end()

    def scopes() -> None:
        scoped.clear()
        for _ in range(_SPANS):
            with scoped.span("span"):
                pass

    def clocks() -> None:
        read = time.perf_counter_ns
        for _ in range(_SPANS):
            read()
            read()

    def nothing() -> None:
        pass

    def calls() -> None:
        for _ in range(_SPANS):
            nothing()
            nothing()

    found = {"begin and end": pairs, "with span": scopes, "two clock readings": clocks, "two empty calls": calls}
    tracer = _opentelemetry()
    if tracer is not None:

        def spans() -> None:
            for _ in range(_SPANS):
                with tracer.start_as_current_span("span"):
                    pass

        found["OpenTelemetry SDK span"] = spans
    return found


def _opentelemetry() -> Any:
    try:
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    except ImportError:
        return None
    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())  # the base class keeps nothing
    return provider.get_tracer("benchmark")


def per_span(rounds: int) -> dict[str, dict[str, float]]:
    """Least and median CPU seconds per span of each candidate."""
    loops, rng = candidates(), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in loops}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            order = list(loops)
            rng.shuffle(order)
            for name in order:
                start = time.process_time_ns()
                loops[name]()
                times[name].append((time.process_time_ns() - start) * 1e-9 / _SPANS)
                gc.collect(0)
    finally:
        gc.enable()
    return {name: {"least_s": min(one), "median_s": statistics.median(one)} for name, one in times.items()}


def whole_trace(spans: int = 100_000, repeats: int = 3) -> dict[str, float]:
    """CPU seconds to record, to make records and to write; the median of each over the repeats."""
    parts: dict[str, list[float]] = {"record_s": [], "records_s": [], "write_s": [], "total_s": []}
    size = 0
    for _ in range(repeats):
        start = time.process_time()
        recorder = Recorder()
        for _ in range(spans // 10):
            with recorder.span("step"):
                for name in ("read", "cast", "embed", "attend", "project", "norm", "mix", "pool", "write"):
                    recorder.begin(name)
                    recorder.end()
        recorded = time.process_time()
        trace = Trace("benchmark", "gnomon", recorder.spans())
        made = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            size = write_trace(Path(folder, "trace.json"), trace).stat().st_size
        written = time.process_time()
        for key, value in zip(parts, (recorded - start, made - recorded, written - made, written - start), strict=True):
            parts[key].append(value)
    return {key: statistics.median(values) for key, values in parts.items()} | {"spans": spans, "bytes": size}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    costs, trace = per_span(options.rounds), whole_trace()
    holds = {
        "begin and end": costs["begin and end"]["median_s"] <= _MOST_S["begin and end"],
        "record 100,000 spans and write the trace": trace["total_s"] <= 2.0,
    }
    for name, cost in sorted(costs.items(), key=lambda item: item[1]["median_s"]):
        print(f"{name:24} {cost['median_s'] * 1e9:8.0f} ns median, {cost['least_s'] * 1e9:8.0f} ns least")
    other = costs.get("OpenTelemetry SDK span")
    if other is not None:
        print(f"a span of the SDK costs {other['median_s'] / costs['begin and end']['median_s']:.0f} times as much")
    print(
        f"{trace['spans']:.0f} spans: recorded in {trace['record_s']:.2f} s, records in {trace['records_s']:.2f} s, "
        f"{trace['bytes'] / 1e6:.0f} MB written in {trace['write_s']:.2f} s; {trace['total_s']:.2f} s in all"
    )
    for bar, kept in holds.items():
        print(f"{bar}: at most {_MOST_S[bar]:g} s: {'holds' if kept else 'FAILS'}")
    result = {"per_span": costs, "trace": trace, "bars": holds, "machine": to_json(host())}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
