"""The highest rate of queries that a system sustains within its latency bound: double until it is missed, then bisect.

As MLModelScope's agent searched, but each trial is judged with early stopping, so that the rate holds with confidence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gnomon.core.errors import UsageError
from gnomon.core.records import record
from gnomon.measure.record import Environment
from gnomon.measure.scenarios.early_stopping import least_queries
from gnomon.measure.scenarios.result import ScenarioResult
from gnomon.spec.task import Scenario

Outcome = Literal["found", "bound-never-missed", "lowest-failed", "runs-exhausted"]
_HALVINGS = 6  # below the start, before the system is said not to meet the bound at all


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of the search, in short; the whole is a ScenarioResult of its own in the store."""

    qps: float
    is_valid: bool
    target_s: float
    queries: int
    over_latency: int


@record("qps-search", 1)
@dataclass(frozen=True, slots=True)
class QpsSearch:
    """The end of a search. valid_qps: the highest rate that was valid; invalid_qps: the lowest above it that was not.

    outcome: 'found' when the two are within the tolerance; 'runs-exhausted' when they are not yet; 'lowest-failed' and
    'bound-never-missed' when one of them is missing. said: the same in words.
    """

    task: str
    task_digest: str
    sut: str
    scenario: Scenario
    outcome: Outcome
    valid_qps: float | None
    invalid_qps: float | None
    tolerance: float
    trials: tuple[Trial, ...]
    said: str
    environment: Environment | None = None


def check_search(scenario: Scenario) -> None:
    """Raises UsageError for a scenario that has no rate, or whose runs are too short for any verdict but INVALID."""
    if scenario.name != "server":
        raise UsageError(f"only scenario 'server' has a rate of queries to search; this is {scenario.name!r}")
    least = least_queries(0, scenario.bound_percentile, scenario.confidence)
    if scenario.min_queries < least:
        raise UsageError(
            f"min_queries is {scenario.min_queries}: the {scenario.bound_percentile * 100:g}th percentile cannot be "
            f"proved at {scenario.confidence:.0%} confidence with fewer than {least} queries, even if none is late"
        )


def find_max_qps(
    attempt: Callable[[float], ScenarioResult],
    scenario: Scenario,
    *,
    tolerance: float = 0.01,
    most_runs: int = 24,
) -> QpsSearch:
    """Search from scenario.target_qps. attempt: runs the scenario at a rate and returns its result.

    tolerance: relative width of the bracket at which the search ends. A start that fails is halved up to 6 times.
    Raises UsageError as `check_search` does, and for a tolerance or number of runs out of range.
    """
    check_search(scenario)
    if not 0 < tolerance < 1 or most_runs < 2:
        raise UsageError(f"wanted a tolerance between 0 and 1 and at least 2 runs; got {tolerance} and {most_runs}")
    assert scenario.target_qps is not None  # the record's own check
    start = scenario.target_qps
    results: list[ScenarioResult] = []
    trials: list[Trial] = []
    valid: float | None = None
    invalid: float | None = None
    while len(trials) < most_runs:
        qps = _next(start, valid, invalid)
        one = attempt(qps)
        results.append(one)
        trials.append(_trial(qps, one))
        if trials[-1].is_valid:
            valid = qps
        else:
            invalid = qps
        if valid is None and qps < start / 2**_HALVINGS * 1.5:
            break
        if valid is not None and invalid is not None and invalid - valid <= tolerance * valid:
            break
    outcome, said = _outcome(scenario, valid, invalid, tolerance, trials)
    last = results[-1]
    return QpsSearch(
        last.task, last.task_digest, last.sut, scenario, outcome, valid, invalid, tolerance, tuple(trials), said,
        last.environment,
    )  # fmt: skip


def _next(start: float, valid: float | None, invalid: float | None) -> float:
    if valid is None:
        return start if invalid is None else invalid / 2
    return 2 * valid if invalid is None else (valid + invalid) / 2


def _trial(qps: float, one: ScenarioResult) -> Trial:
    late = one.early_stopping.over_latency if one.early_stopping else None
    return Trial(qps, one.verdict == "VALID", one.target.value, one.queries, late or 0)


def _outcome(
    scenario: Scenario, valid: float | None, invalid: float | None, tolerance: float, trials: list[Trial]
) -> tuple[Outcome, str]:
    bound_ms, p = (scenario.latency_bound_s or 0) * 1e3, scenario.bound_percentile * 100
    bound = f"the bound of {bound_ms:g} ms at the {p:g}th percentile"
    if valid is None:
        return "lowest-failed", (
            f"{bound} is missed even at {trials[-1].qps:.4g} queries/s, the lowest rate tried; a single query may take "
            "longer than it. Raise the bound, or start from a lower rate"
        )
    if invalid is None:
        return "bound-never-missed", (
            f"{bound} still holds at {valid:.4g} queries/s, the highest rate tried in {len(trials)} runs. Start from a "
            "higher rate, or allow more runs"
        )
    if invalid - valid <= tolerance * valid:
        return "found", f"{valid:.4g} queries/s keep {bound}; {invalid:.4g} do not ({len(trials)} runs)"
    return "runs-exhausted", (
        f"{valid:.4g} queries/s keep {bound} and {invalid:.4g} do not; {len(trials)} runs came no closer than "
        f"{invalid / valid - 1:.1%}, and {tolerance:.1%} was wanted"
    )
