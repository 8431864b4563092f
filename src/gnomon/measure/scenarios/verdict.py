"""Whether a run under load is valid, by LoadGen's conditions, each with its reason and what to do about it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gnomon.core.units import format_seconds
from gnomon.measure.scenarios import early_stopping
from gnomon.measure.scenarios.early_stopping import EarlyStopping
from gnomon.measure.scenarios.percentiles import percentile
from gnomon.measure.scenarios.recording import Recording
from gnomon.spec.task import Scenario

_HEADROOM = 1.1  # of the samples in an offline query, so that it lasts as long as it must


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on a run. reason: what was wanted and what came. hint: what to change; empty when it is met."""

    name: Literal["min-duration", "min-queries", "latency-bound", "early-stopping"]
    is_met: bool
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """is_valid: all conditions are met. early_stopping: None for offline, which has none."""

    is_valid: bool
    conditions: tuple[Condition, ...]
    early_stopping: EarlyStopping | None


def judge(scenario: Scenario, recording: Recording) -> Verdict:
    """LoadGen's verdict on a run of one of the four inference scenarios. Raises as `Recording.check` does."""
    if scenario.name == "training-steps":
        raise ValueError("steps of training have no LoadGen verdict")
    recording.check()
    conditions = [_duration(scenario, recording), _queries(scenario, recording)]
    if scenario.name == "server":
        conditions.append(_bound(scenario, recording))
    stopping = _early_stopping(scenario, recording)
    if stopping is not None:
        conditions.append(_enough(scenario, stopping, len(recording.completed)))
    return Verdict(all(one.is_met for one in conditions), tuple(conditions), stopping)


def offline_samples(scenario: Scenario, loaded: int) -> int:
    """Samples in the one query of the offline scenario: as LoadGen sizes it where a rate is expected.

    loaded: samples in memory; each is asked for at least once when nothing else sets the size.
    """
    if scenario.samples_per_query is not None:
        return scenario.samples_per_query
    if scenario.target_qps is None:
        return max(scenario.min_queries, loaded)
    return max(scenario.min_queries, int(_HEADROOM * scenario.min_duration_s * scenario.target_qps))


def run_duration_s(scenario: Scenario, recording: Recording) -> float:
    """The duration that min_duration_s is about: until the last query was due, was issued, or was done (offline)."""
    last = {"server": recording.scheduled, "offline": recording.sample_latencies}.get(scenario.name, recording.issued)
    return float(last.max()) * 1e-9


def late(scenario: Scenario, recording: Recording) -> int:
    """Queries that took longer than the bound."""
    return int(np.count_nonzero(recording.latencies > bound_ns(scenario)))


def bound_ns(scenario: Scenario) -> int:
    """The latency bound in nanoseconds. Raises ValueError for a scenario without one."""
    if scenario.latency_bound_s is None:
        raise ValueError(f"scenario {scenario.name!r} has no latency bound")
    return round(scenario.latency_bound_s * 1e9)


def _duration(scenario: Scenario, recording: Recording) -> Condition:
    lasted, wanted = run_duration_s(scenario, recording), scenario.min_duration_s
    reason = f"lasted {format_seconds(lasted)}; at least {format_seconds(wanted)} was wanted"
    if scenario.name == "offline":
        hint = f"put more samples into the query: expect {1.2 * _rate(recording):.0f} or more per second"
    else:
        hint = "raise the limit on queries or time that ended it, or ask for a shorter run"
    return _condition("min-duration", lasted >= wanted, reason, hint)


def _queries(scenario: Scenario, recording: Recording) -> Condition:
    wanted = 1 if scenario.name == "offline" else scenario.min_queries
    got = len(recording.completed)
    reason = f"{got} queries; at least {wanted} were wanted"
    return _condition("min-queries", got >= wanted, reason, "raise the limit on queries or time that ended the run")


def _bound(scenario: Scenario, recording: Recording) -> Condition:
    p, ordered = scenario.bound_percentile, np.sort(recording.latencies)
    value = percentile(ordered, p)
    reason = (
        f"the {p * 100:g}th percentile is {format_seconds(value * 1e-9)}; the bound is "
        f"{format_seconds(bound_ns(scenario) * 1e-9)}"
    )
    hint = "lower the rate of queries (target_qps), or make the system faster"
    return _condition("latency-bound", value <= bound_ns(scenario), reason, hint)


def _early_stopping(scenario: Scenario, recording: Recording) -> EarlyStopping | None:
    p, confidence = scenario.bound_percentile, scenario.confidence
    if scenario.name == "offline":
        return None
    if scenario.name == "server":
        return early_stopping.server(len(recording.completed), late(scenario, recording), p, confidence)
    ordered = np.sort(recording.latencies)
    judged = early_stopping.single_stream if scenario.name == "single-stream" else early_stopping.estimate
    return judged(ordered, p, confidence)


def _enough(scenario: Scenario, stopping: EarlyStopping, queries: int) -> Condition:
    what = f"the {stopping.percentile * 100:g}th percentile at {stopping.confidence:.0%} confidence"
    over = "" if stopping.over_latency is None else f", {stopping.over_latency} of them above the bound,"
    verb = "prove" if stopping.is_met else "do not prove"
    reason = f"{queries} queries{over} {verb} {what}"
    hint = f"{stopping.queries_needed} more queries would"
    hint += ", if each stayed below the bound" if scenario.name == "server" else ""
    return _condition("early-stopping", stopping.is_met, reason, hint)


def _rate(recording: Recording) -> float:
    return len(recording.sample_latencies) / max(float(recording.sample_latencies.max()) * 1e-9, 1e-9)


def _condition(
    name: Literal["min-duration", "min-queries", "latency-bound", "early-stopping"],
    is_met: bool,
    reason: str,
    hint: str,
) -> Condition:
    return Condition(name, is_met, reason, "" if is_met else hint)
