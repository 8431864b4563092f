"""What a run under load came to, as stored. No torch here: the report reads these."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gnomon.core.records import record
from gnomon.core.stats import Interval
from gnomon.measure.record import Environment
from gnomon.measure.scenarios.early_stopping import EarlyStopping
from gnomon.measure.scenarios.percentiles import PERCENTILES, correlation_time, percentile, percentile_interval
from gnomon.measure.scenarios.recording import Ending, Recording
from gnomon.measure.scenarios.verdict import Condition, judge
from gnomon.spec.task import Scenario

_MOST_KEPT = 100_000  # latencies; a record with more would not fit beside others in memory
_LATE_ISSUE_SHARE = 0.1  # of the bound: a lag beyond it is said, as it is in the latency


@dataclass(frozen=True, slots=True)
class Lag:
    """Seconds by which queries were issued after they were due: the generator's own delay, or that of a system that
    takes queries one by one on the issuing thread. It is part of the latency."""

    p50_s: float
    p99_s: float
    largest_s: float


@record("scenario-result", 1)
@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """A system under one of MLPerf's scenarios.

    sut: the system under test. latency: 'p50' ... 'p99.9' and 'mean', seconds with intervals; per query for
    multi-stream, else per sample. target: the percentile that the scenario is about. samples_per_s, as LoadGen counts:
    the first sample only starts the clock (single-stream, server), until the last was done (offline).
    queries_per_s: completed queries over the time until the last completion. latencies_ns: per query, in the order of
    issue; empty when there were too many to keep.
    """

    task: str
    task_digest: str
    sut: str
    scenario: Scenario
    verdict: Literal["VALID", "INVALID"]
    conditions: tuple[Condition, ...]
    early_stopping: EarlyStopping | None
    ending: Ending
    queries: int
    samples: int
    latency: Mapping[str, Interval]
    target: Interval
    samples_per_s: float | None
    queries_per_s: float | None
    duration_s: float
    lag: Lag
    latencies_ns: tuple[int, ...]
    environment: Environment | None = None
    peak_rss_bytes: int | None = None
    warnings: tuple[str, ...] = ()


def result(
    scenario: Scenario,
    recording: Recording,
    *,
    sut: str,
    task: str = "",
    task_digest: str = "",
    environment: Environment | None = None,
    peak_rss_bytes: int | None = None,
) -> ScenarioResult:
    """Judge a recording and put its figures together. Raises as `Recording.check` does."""
    verdict = judge(scenario, recording)
    values = recording.latencies if scenario.name == "multi-stream" else recording.sample_latencies
    latency = {name: percentile_interval(values, p) for name, p in PERCENTILES.items()}
    latency["mean"] = _mean(values)
    lag = np.sort(recording.lag) * 1e-9
    kept = recording.latencies if len(recording.latencies) <= _MOST_KEPT else np.empty(0, np.int64)
    done_s = float(recording.completed.max()) * 1e-9
    return ScenarioResult(
        task=task,
        task_digest=task_digest,
        sut=sut,
        scenario=scenario,
        verdict="VALID" if verdict.is_valid else "INVALID",
        conditions=verdict.conditions,
        early_stopping=verdict.early_stopping,
        ending=recording.ending,
        queries=len(recording.completed),
        samples=len(recording.sample_latencies),
        latency=latency,
        target=percentile_interval(values, scenario.bound_percentile),
        samples_per_s=_samples_per_s(scenario, recording),
        queries_per_s=len(recording.completed) / done_s if done_s > 0 else None,
        duration_s=done_s,
        lag=Lag(float(lag[len(lag) // 2]), float(percentile(np.sort(recording.lag), 0.99)) * 1e-9, float(lag[-1])),
        latencies_ns=tuple(kept.tolist()),
        environment=environment,
        peak_rss_bytes=peak_rss_bytes,
        warnings=tuple(_warnings(scenario, recording)),
    )


def _samples_per_s(scenario: Scenario, recording: Recording) -> float | None:
    n = len(recording.sample_latencies)
    if scenario.name == "offline":
        count, over_ns = n, int(recording.sample_latencies.max())
    elif scenario.name == "server":
        count, over_ns = n - 1, int(recording.completed[-1])
    else:
        count, over_ns = n - n // len(recording.issued), int(recording.issued[-1])
    return count / (over_ns * 1e-9) if over_ns > 0 and count > 0 else None


def _mean(values: np.ndarray) -> Interval:
    n, mean = len(values), float(values.mean()) * 1e-9
    if n == 1:
        return Interval(mean, None, None, 0.95, 1)
    middle = values > np.median(values)
    half = 1.96 * float(values.std(ddof=1)) * 1e-9 * (correlation_time(middle) / n) ** 0.5
    return Interval(mean, mean - half, mean + half, 0.95, n)


def _warnings(scenario: Scenario, recording: Recording) -> list[str]:
    warnings = []
    if scenario.name == "server" and scenario.latency_bound_s is not None:
        slowest = float(percentile(np.sort(recording.lag), scenario.bound_percentile)) * 1e-9
        if slowest > _LATE_ISSUE_SHARE * scenario.latency_bound_s:
            warnings.append(
                f"queries were issued up to {slowest * 1e3:.3g} ms late (at the {scenario.bound_percentile:.0%} "
                "percentile), and this is in their latency. Is the machine busy, or does the system hold the issuing "
                "thread?"
            )
    if recording.ending == "hopeless":
        warnings.append("the run was ended early: more queries were late than any continuation could have made up for")
    return warnings
