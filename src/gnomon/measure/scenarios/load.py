"""Put a task under load on this machine: each run in a fresh process, its recording judged here. No torch here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gnomon.core.errors import UsageError
from gnomon.core.process import JSON, call
from gnomon.core.records import structure, to_json
from gnomon.measure.child import child_env, environment, now, silent
from gnomon.measure.scenarios.recording import Recording
from gnomon.measure.scenarios.result import ScenarioResult, result
from gnomon.measure.scenarios.search import QpsSearch, check_search, find_max_qps
from gnomon.measure.scenarios.training import TrainingResult, TrainingRun, training_result
from gnomon.spec.task import Scenario, Task

Progress = Callable[[str], None]
_LOADED = 64  # samples in memory, at least one batch
_ARRAYS = ("scheduled", "issued", "completed", "sample_latencies")


def serve(
    task: Task,
    scenario: Scenario,
    *,
    timeout_s: float = 60.0,
    give_up: bool = False,
    progress: Progress = silent,
) -> ScenarioResult:
    """Run one of the four inference scenarios. Queries hold as many samples as the scenario says; the task's dimension
    B is set to it, but for offline, where B is the batch in which the one query is worked through.

    server runs the model on one thread behind a queue, the others on the thread that issues. timeout_s: without any
    completion. give_up: see `scenarios.run.run`. Raises UsageError for a task or scenario that does not fit,
    NotRunnable for a time-out, CheckFailed when the model fails.
    """
    sized = for_scenario(task, scenario)
    started_at = now()
    loaded = max(1, _LOADED // sized.dims.get("B", 1))
    found = _child(sized, "serve", scenario, {"batches": loaded, "timeout_s": timeout_s, "give_up": give_up}, progress)
    scheduled, issued, completed, latencies = (np.array(found[name], dtype=np.int64) for name in _ARRAYS)
    return result(
        scenario,
        Recording(scheduled, issued, completed, latencies, found["ending"]),
        sut=f"{task.name} on {task.device}, {task.dtype}, {task.threads} thread(s)",
        task=task.name,
        task_digest=task.digest,
        environment=environment(task, found["allocator"], started_at),
        peak_rss_bytes=found["peak_rss_bytes"],
    )


def search(
    task: Task,
    scenario: Scenario,
    *,
    tolerance: float = 0.01,
    most_runs: int = 24,
    timeout_s: float = 60.0,
    on_result: Callable[[ScenarioResult], object] = lambda one: None,
    progress: Progress = silent,
) -> QpsSearch:
    """The highest rate that keeps the latency bound, from scenario.target_qps on.

    on_result: is given each run's result. Raises as `serve` and `find_max_qps` do.
    """
    check_search(scenario)

    def attempt(qps: float) -> ScenarioResult:
        progress(f"{qps:.4g} queries/s")
        one = serve(task, replace(scenario, target_qps=qps), timeout_s=timeout_s, give_up=True)
        on_result(one)
        return one

    return find_max_qps(attempt, scenario, tolerance=tolerance, most_runs=most_runs)


def train(task: Task, scenario: Scenario, *, progress: Progress = silent) -> TrainingResult:
    """Run the training scenario. Raises UsageError for a task that is not in training mode or has no such target."""
    sized = for_scenario(task, scenario)
    started_at = now()
    batch = sized.dims.get("B", 1)
    found = _child(sized, "train", scenario, {"batches": max(1, _LOADED // batch)}, progress)
    return training_result(
        scenario,
        structure(TrainingRun, found["run"]),
        batch=batch,
        peak_rss_bytes=found["peak_rss_bytes"],
        metric=task.quality.metric,
        higher_is_better=task.quality.higher_is_better,
        task=task.name,
        task_digest=task.digest,
        environment=environment(task, found["allocator"], started_at),
    )


def for_scenario(task: Task, scenario: Scenario) -> Task:
    """The task with the size of its batch set as the scenario wants it. Raises UsageError when they do not fit."""
    wanted = "training" if scenario.name == "training-steps" else "inference"
    if task.mode != wanted:
        raise UsageError(
            f"scenario {scenario.name!r} runs tasks in {wanted} mode; {task.name} is in {task.mode}. "
            f"Pass --mode {wanted}, or choose another scenario"
        )
    if scenario.target_quality is not None and task.quality.evaluate is None:
        raise UsageError(f"task {task.name} has no quality.evaluate, so it has no quality to reach; give a target loss")
    if scenario.name in ("offline", "training-steps"):
        return task
    if "B" in task.dims:
        return replace(task, dims={**task.dims, "B": scenario.query_samples})
    if scenario.query_samples != 1:
        raise UsageError(
            f"task {task.name} has no dimension B, so a query holds one sample; got {scenario.query_samples} per query"
        )
    return task


def _child(task: Task, function: str, scenario: Scenario, more: Mapping[str, Any], progress: Progress) -> JSON:
    arguments = {"task": to_json(task), "scenario": to_json(scenario), **more}
    target = f"gnomon.measure.scenarios.session:{function}"
    limit_s = task.protocol.timeout_s + max(scenario.min_duration_s, scenario.max_duration_s or 0.0)
    return call(target, arguments, timeout_s=limit_s, env=child_env(task), on_progress=progress)
