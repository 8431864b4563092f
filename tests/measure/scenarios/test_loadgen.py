"""MLCommons' LoadGen is driven for real; what it recorded must come out of our code as it came out of LoadGen's."""

import random
import re
import time

import numpy as np
import pytest

from gnomon.core.errors import CheckFailed, DamagedData
from gnomon.measure.scenarios.arrivals import poisson_ns
from gnomon.measure.scenarios.loadgen import read_logs, run_loadgen
from gnomon.measure.scenarios.percentiles import PERCENTILES, percentile
from gnomon.measure.scenarios.result import result
from gnomon.measure.scenarios.systems import Queued, Serial
from gnomon.spec.task import Scenario

pytest.importorskip("mlperf_loadgen")

SHORT = 0.001


def stream(queries, name="single-stream", **changes):
    return Scenario(name, min_queries=queries, **{"min_duration_s": SHORT, **changes})


def server(queries, qps=20_000.0, bound_s=5.0, **changes):
    return Scenario("server", target_qps=qps, latency_bound_s=bound_s, min_queries=queries, min_duration_s=SHORT,
                    **changes)  # fmt: skip


def offline(qps, **changes):
    return Scenario("offline", target_qps=qps, **{"min_queries": 24, "min_duration_s": 0.002, **changes})


CASES = {
    "single-stream, too few": (stream(63), False),
    "single-stream, just enough": (stream(64), True),
    "single-stream, some left out": (stream(635), True),
    "single-stream, also p99": (stream(900, seed=3), True),
    "single-stream, p95": (stream(300, percentile=0.95), True),
    "single-stream, median": (stream(50, percentile=0.5), True),
    "single-stream, too short": (stream(70, min_duration_s=0.5, max_queries=80), False),
    "multi-stream": (stream(700, "multi-stream", samples_per_query=3), True),
    "multi-stream, too few": (stream(661, "multi-stream", samples_per_query=2), False),
    "multi-stream, p90": (stream(200, "multi-stream", percentile=0.9), True),
    "server": (server(500, seed=5), True),
    "server, too few": (server(458, seed=6), False),
    "server, bound missed": (server(500, bound_s=1e-6, seed=7), False),
    "server, p90": (server(64, percentile=0.9, seed=8), True),
    "server, p99.9": (server(700, percentile=0.999, seed=9), False),
    "server, perhaps": (server(600, bound_s=200e-6, seed=10), None),  # as the machine has it
    "server, p90, perhaps": (server(300, qps=5000.0, bound_s=80e-6, percentile=0.9, seed=11), None),
    "server, median, perhaps": (server(300, qps=5000.0, bound_s=60e-6, percentile=0.5, seed=12), None),
    "offline": (offline(2_000_000.0), True),
    "offline, too short": (offline(2000.0, min_duration_s=1.0, samples_per_query=100), False),
}


def busy(seed, mean_ns=15_000):
    """A system that takes random times, few of them long."""
    rng = random.Random(seed)

    def work(samples):
        end = time.perf_counter_ns() + round(rng.expovariate(1 / mean_ns))
        while time.perf_counter_ns() < end:
            pass

    return work


@pytest.fixture(params=CASES, scope="module")
def case(request, tmp_path_factory):
    scenario, is_valid = CASES[request.param]
    logs = run_loadgen(scenario, Serial(busy(scenario.seed), batch=8), 32, tmp_path_factory.mktemp("logs"))
    return scenario, is_valid, logs, result(scenario, logs.recording, sut="busy")


def test_the_verdict_and_each_condition_are_those_of_loadgen(case):
    _, is_valid, logs, ours = case
    assert is_valid in (None, logs.is_valid)
    assert ours.verdict == ("VALID" if logs.is_valid else "INVALID")
    met = {one.name: one.is_met for one in ours.conditions}
    keys = {
        "min-duration": "result_min_duration_met",
        "min-queries": "result_min_queries_met",
        "latency-bound": "result_perf_constraints_met",
        "early-stopping": "early_stopping_met",
    }
    assert met == {name: logs.detail[keys[name]] for name in met}
    assert all(bool(one.hint) != one.is_met for one in ours.conditions)


def test_every_percentile_is_that_of_loadgen_to_the_nanosecond(case):
    scenario, _, logs, ours = case
    what = "_percentile_per_query_latency_ns" if scenario.name == "multi-stream" else "_percentile_latency_ns"
    theirs = {name: logs.detail[f"result_{p * 100:.2f}{what}"] for name, p in PERCENTILES.items()}
    assert {name: round(ours.latency[name].value * 1e9) for name in theirs} == theirs
    per_sample = np.sort(logs.recording.sample_latencies)
    assert percentile(per_sample, 0.97) == logs.detail["result_97.00_percentile_latency_ns"]
    assert int(ours.latency["mean"].value * 1e9 + 1e-3) == logs.detail["result_mean_latency_ns"]


def test_early_stopping_says_what_loadgen_says(case):
    scenario, _, logs, ours = case
    said, found = logs.detail["early_stopping_result"], ours.early_stopping
    if scenario.name == "offline":
        assert (said, found) == ("", None)
        return
    discarded, more = re.search(r"discard (\d+)", said), re.search(r"at least (\d+) more queries", said)
    assert found.discarded == (int(discarded[1]) if discarded else None)
    if scenario.name == "server":
        assert found.over_latency == logs.detail["result_overlatency_query_count"]
        assert found.queries_needed == (int(more[1]) if more else 0)
    else:
        key = "early_stopping_latency_ss" if scenario.name == "single-stream" else "early_stopping_latency_ms"
        assert round((found.estimate_s or 0) * 1e9) == logs.detail[key]
    if scenario.name == "single-stream":
        assert round((found.multi_stream_estimate_s or 0) * 1e9) == logs.detail["early_stopping_latency_ms"]


def test_throughput_is_that_of_loadgen(case):
    scenario, _, logs, ours = case
    key = {
        "single-stream": "result_qps_with_loadgen_overhead",
        "server": "result_completed_samples_per_sec",
        "offline": "result_samples_per_second",
    }.get(scenario.name)
    if key is not None:  # LoadGen states none for multi-stream
        start_is_known = scenario.name != "single-stream"  # the log gives its first loop, a microsecond later
        assert ours.samples_per_s == pytest.approx(logs.detail[key], rel=1e-5 if start_is_known else 1e-2)


@pytest.mark.parametrize("seed", [0, 1, 12345, 3133965575612453542 % 2**32])
def test_arrivals_are_those_of_loadgen_for_the_same_seed(seed, tmp_path):
    scenario = server(800, qps=50_000.0, seed=seed)
    logs = run_loadgen(scenario, Serial(busy(0, 100)), 8, tmp_path)
    ours = poisson_ns(50_000.0, 800, SHORT, seed)
    assert np.abs(logs.recording.scheduled - ours).max() <= 1  # a logarithm may be rounded the other way


def test_a_queue_is_a_system_for_loadgen_too(tmp_path):
    with Queued(busy(1)) as system:
        logs = run_loadgen(server(460), system, 8, tmp_path)
    assert len(logs.recording.completed) == 460
    assert (np.diff(logs.recording.completed) >= 0).all()


def test_an_error_of_the_system_comes_back_from_loadgen(tmp_path):
    def work(samples):
        raise ArithmeticError("out of luck")

    with pytest.raises(ArithmeticError, match="out of luck"):
        run_loadgen(stream(3), Serial(work), 8, tmp_path)


def test_logs_that_are_missing_or_cut_off_are_told(tmp_path):
    with pytest.raises(DamagedData, match="LoadGen's logs cannot be read"):
        read_logs(tmp_path)
    run_loadgen(stream(70), Serial(busy(0)), 8, tmp_path)
    trace = tmp_path / "mlperf_log_trace.json"
    trace.write_text(trace.read_text()[:500])
    with pytest.raises(DamagedData, match="no trace of samples or no result"):
        read_logs(tmp_path)


def test_a_recording_with_a_clock_that_went_backwards_is_refused(tmp_path):
    recording = run_loadgen(stream(70), Serial(busy(0)), 8, tmp_path).recording
    recording.completed[3] = recording.issued[3] - 5
    with pytest.raises(CheckFailed, match="went backwards by 5 ns"):
        result(stream(70), recording, sut="busy")
