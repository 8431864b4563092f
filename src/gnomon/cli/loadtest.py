"""`gnomon loadtest`: a task under load, in one of MLPerf's scenarios or in training."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from gnomon.cli._common import TaskChoice, console, json_option, print_json, store_option, with_task

if TYPE_CHECKING:
    from gnomon.spec.task import Scenario, Task

_NAMES = ["single-stream", "multi-stream", "server", "offline", "training-steps"]


class _Time(click.ParamType):
    """'100ms' as seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds. Fails with click's message for what is no time."""
        from gnomon.core.units import parse_seconds

        try:
            return value if isinstance(value, float) else parse_seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@with_task(on_device=True)
@click.option("--scenario", "name", type=click.Choice(_NAMES), help="Instead of the task's own, else single-stream.")
@click.option("--qps", type=float, help="Queries per second: server's mean rate, offline's expected samples/s.")
@click.option("--latency-bound", type=_Time(), help="server: what the percentile must stay below, e.g. 100ms.")
@click.option("--percentile", type=float, help="The percentile that counts, e.g. 99 (90 for single-stream).")
@click.option("--samples-per-query", type=int, help="Samples in a query (8 for multi-stream).")
@click.option("--min-queries", type=int, help="Issue at least so many queries (100); steps for training.")
@click.option("--min-duration", type=_Time(), help="Go on for at least so long (10s).")
@click.option("--max-queries", type=int, help="Issue no more than so many queries; steps for training.")
@click.option("--max-duration", type=_Time(), help="End after so long.")
@click.option("--seed", type=int, help="Seed of the arrivals and of the order of samples.")
@click.option("--target-quality", type=float, help="Training: end when the task's quality metric is as good.")
@click.option("--target-loss", type=float, help="Training: end when the mean of recent losses is as low.")
@click.option("--evaluate-every", type=int, help="Training: steps between two looks at the target (10).")
@click.option("--find-max-qps", is_flag=True, help="server: search the highest rate within the bound, from --qps on.")
@click.option("--runs", default=24, show_default=True, type=click.IntRange(min=2), help="Runs of a search, at most.")
@click.option("--timeout", default="60s", show_default=True, type=_Time(), help="Give up when no query is done for so long.")  # fmt: skip # noqa: E501
@store_option
@json_option
def command(
    choice: TaskChoice, find_max_qps: bool, runs: int, timeout: float, store_url: str | None, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Put TASK under load on this machine: MLPerf's scenarios, their verdict and early stopping, or training.

    Exits with 1 when the run is INVALID, when a search finds no valid rate, or when training misses its target.
    """
    from gnomon import pipeline
    from gnomon.cli._progress import Progress
    from gnomon.core.records import to_json
    from gnomon.report import scenarios
    from gnomon.store.store import open_store

    if given["name"] == "training-steps" and choice.mode is None:
        choice = dataclasses.replace(choice, mode="training")
    task = choice.resolve()
    scenario = _scenario(task, given)
    arguments = {"scenario": to_json(scenario), "find_max_qps": find_max_qps, "runs": runs, "timeout_s": timeout}
    result: Any
    with (
        open_store(store_url).begin("loadtest", arguments, task=task.name, task_digest=task.digest) as run,
        Progress(f"{task.name}: {scenario.name}") as progress,
    ):
        run.add(task)
        if find_max_qps:
            result = pipeline.max_qps(task, run, scenario, most_runs=runs, timeout_s=timeout, progress=progress)
        else:
            result = pipeline.load_test(task, run, scenario, timeout_s=timeout, progress=progress)
    if as_json:
        print_json(result)
    else:
        scenarios.print_result(console(), result)
        console().print(f"stored as run {run.id}")
    if not _is_good(result):
        raise SystemExit(1)


def _is_good(result: Any) -> bool:
    kind = result.__record__[0]
    if kind == "qps-search":
        return result.valid_qps is not None
    return bool(result.outcome != "not-reached" if kind == "training-result" else result.verdict == "VALID")


def _scenario(task: "Task", given: dict[str, Any]) -> "Scenario":
    """The task's own scenario with what was given instead. Raises UsageError when that is none."""
    from gnomon.spec.task import Scenario

    keys = {"qps": "target_qps", "latency_bound": "latency_bound_s", "min_duration": "min_duration_s",
            "max_duration": "max_duration_s"}  # fmt: skip
    wanted = {keys.get(key, key): value for key, value in given.items() if value is not None}
    if "percentile" in wanted:
        if not 0 < wanted["percentile"] < 100:
            raise click.BadParameter(
                f"wanted a percentile between 0 and 100, both excluded; got {wanted['percentile']:g}",
                param_hint="--percentile",
            )
        wanted["percentile"] = round(wanted["percentile"] / 100, 12)  # 99.9 / 100 is not 0.999
    try:
        if task.scenario is not None and wanted.get("name", task.scenario.name) == task.scenario.name:
            return dataclasses.replace(task.scenario, **wanted)
        return Scenario(**{"name": "training-steps" if task.mode == "training" else "single-stream", **wanted})
    except ValueError as error:
        raise click.UsageError(f"{error}. Options: --qps, --latency-bound, ...; see gnomon loadtest --help") from error
