"""Put a task under load: one scenario, a search for the highest rate, or training until it is good enough."""

from gnomon.measure.scenarios.result import ScenarioResult
from gnomon.measure.scenarios.search import QpsSearch
from gnomon.measure.scenarios.training import TrainingResult
from gnomon.pipeline._progress import Progress, silent
from gnomon.spec.task import Scenario, Task
from gnomon.store.store import Run


def load_test(
    task: Task, run: Run, scenario: Scenario, *, timeout_s: float = 60.0, progress: Progress = silent
) -> ScenarioResult | TrainingResult:
    """The task under one scenario on this machine. timeout_s: how long no query may be completed."""
    from gnomon.measure.scenarios import load

    result: ScenarioResult | TrainingResult
    if scenario.name == "training-steps":
        result = load.train(task, scenario, progress=progress)
    else:
        result = load.serve(task, scenario, timeout_s=timeout_s, progress=progress)
    run.add(result)
    return result


def max_qps(
    task: Task,
    run: Run,
    scenario: Scenario,
    *,
    tolerance: float = 0.01,
    most_runs: int = 24,
    timeout_s: float = 60.0,
    progress: Progress = silent,
) -> QpsSearch:
    """The highest rate of queries that the task sustains within the scenario's latency bound; each run is stored."""
    from gnomon.measure.scenarios import load

    found = load.search(
        task, scenario, tolerance=tolerance, most_runs=most_runs, timeout_s=timeout_s, on_result=run.add,
        progress=progress,
    )  # fmt: skip
    run.add(found)
    return found
