"""Tasks under load in child processes: the smallest task, a fraction of a second of load."""

from dataclasses import replace
from pathlib import Path

import pytest

from gnomon.core.errors import CheckFailed, NotRunnable, UsageError
from gnomon.core.records import from_json, structure, to_json
from gnomon.measure.scenarios import load, session
from gnomon.measure.scenarios.training import TrainingRun
from gnomon.spec.task import Model, Quality, Scenario, Tensor
from tests.measure import tasks

HERE = str(Path(__file__).parent)
BRISK = replace(tasks.PROTOCOL, warmup_s=0.0)
STREAM = Scenario("single-stream", min_queries=70, min_duration_s=0.01)


def broken(name, **changes):
    x = Tensor("input", "float32", ("B", 8))
    model = Model("broken", "1", "python", f"models:{name}", {}, (x,))
    return tasks.task(model, {"B": 1}, **{"protocol": BRISK, "folder": HERE, "trusted": True, **changes})


def here(function, task, scenario, **more):
    """What the child would do, in this process: a child takes seconds to import torch."""
    arguments = {
        "task": to_json(task),
        "scenario": to_json(scenario),
        "batches": 4,
        "timeout_s": 60.0,
        "give_up": False,
    }
    return function({**arguments, **more})


def test_a_stream_of_queries_is_recorded_with_where_and_with_what():
    got = load.serve(tasks.linear(), STREAM)
    assert got.verdict == "VALID", got.conditions
    assert got.queries == got.samples == len(got.latencies_ns) >= 70
    assert got.latency["p50"].value <= got.latency["p90"].value <= got.latency["p99.9"].value
    assert got.environment.threads == 1
    assert "torch" in got.environment.packages
    assert got.peak_rss_bytes > 10**7
    assert from_json(to_json(got)) == got


def test_the_batch_is_as_large_as_a_query():
    scenario = Scenario("multi-stream", min_queries=10, min_duration_s=0.0)
    sized = load.for_scenario(tasks.linear(dims={"B": 4}, protocol=BRISK), scenario)
    assert sized.dims == {"B": 8}
    assert len(here(session.serve, sized, scenario)["sample_latencies"]) == 80


def test_a_server_is_given_queries_at_its_rate():
    scenario = Scenario("server", target_qps=500.0, latency_bound_s=5.0, min_queries=460, min_duration_s=0.0)
    got = load.serve(tasks.linear(), scenario)
    assert got.verdict == "VALID", got.conditions
    assert got.queries_per_s == pytest.approx(500, rel=0.15)  # 460 exponential gaps spread by 5 %


def test_all_samples_are_offered_offline():
    scenario = Scenario("offline", samples_per_query=100, min_duration_s=0.0)
    got = here(session.serve, load.for_scenario(tasks.linear(dims={"B": 16}, protocol=BRISK), scenario), scenario)
    assert (len(got["completed"]), len(got["sample_latencies"])) == (1, 100)
    assert len(set(got["sample_latencies"])) == 7  # batches of 16


def test_training_takes_fresh_batches_and_lowers_its_loss():
    scenario = Scenario("training-steps", min_queries=60, min_duration_s=0.0)
    got = load.train(tasks.training(), scenario)
    assert (got.steps, got.outcome) == (60, "no-target")
    losses = [point.value for point in got.loss_curve]
    assert len(set(losses)) == 60  # the mean of the outputs falls without end; no two batches are alike
    assert sum(losses[-16:]) < sum(losses[:16])
    assert got.samples_per_s == pytest.approx(4 * got.steps_per_s.value)
    assert got.peak_rss_bytes > 10**7


def test_training_until_a_quality_is_reached_says_when():
    quality = Quality("models:output_sum", "output_sum", higher_is_better=False)
    task = tasks.training(quality=quality, folder=HERE, trusted=True)
    scenario = Scenario("training-steps", target_quality=-50.0, max_queries=5000, evaluate_every=20)
    run = structure(TrainingRun, here(session.train, task, scenario)["run"])
    assert run.reached == run.quality[-1]
    assert [point.step for point in run.quality] == list(range(20, run.reached.step + 1, 20))
    assert run.quality[-1].value <= -50.0 < run.quality[-2].value
    missed = structure(TrainingRun, here(session.train, task, replace(scenario, max_queries=40))["run"])
    assert (missed.reached, len(missed.losses)) == (None, 40)


def test_a_metric_that_evaluate_does_not_give_is_told():
    task = tasks.training(quality=Quality("models:output_sum", "recall"), folder=HERE, trusted=True)
    scenario = Scenario("training-steps", target_quality=0.5, max_queries=100)
    with pytest.raises(CheckFailed, match="models:output_sum gives output_sum; wanted 'recall'"):
        here(session.train, task, scenario)


def test_a_model_that_hangs_is_a_named_time_out():
    scenario = Scenario("server", target_qps=100.0, latency_bound_s=1.0, min_queries=5, min_duration_s=0.0)
    with pytest.raises(NotRunnable, match="task tiny did not complete query") as caught:
        here(session.serve, broken("Hangs"), scenario, timeout_s=0.2)
    assert caught.value.outcome == "timed-out"


def test_a_model_that_fails_under_load_is_told_with_the_query():
    with pytest.raises(CheckFailed, match=r"task tiny failed on query \d+ with ArithmeticError: out of luck"):
        here(session.serve, broken("Fails"), STREAM)


def test_a_model_that_eats_a_time_limit_is_stopped():
    protocol = replace(tasks.PROTOCOL, timeout_s=4.0, warmup_s=0.0)
    with pytest.raises(NotRunnable, match="did not end within") as caught:
        load.serve(broken("Hangs", protocol=protocol), STREAM)
    assert caught.value.outcome == "timed-out"


@pytest.mark.parametrize(
    ("task", "scenario", "message"),
    [
        (tasks.training(), STREAM, "runs tasks in inference mode; tiny is in training. Pass --mode inference"),
        (tasks.linear(), Scenario("training-steps"), "runs tasks in training mode"),
        (
            tasks.training(),
            Scenario("training-steps", target_quality=0.5, max_queries=100),
            "no quality.evaluate, so it has no quality to reach",
        ),
        (tasks.linear(dims={}), Scenario("multi-stream"), "no dimension B, so a query holds one sample; got 8"),
    ],
)
def test_a_task_and_a_scenario_that_do_not_fit_are_refused_before_any_work(task, scenario, message):
    with pytest.raises(UsageError, match=message):
        load.for_scenario(task, scenario)
