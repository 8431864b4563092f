"""`gnomon run`: measure a task on this machine."""

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, store_option, with_task


@click.command()
@with_task(on_device=True)
@click.option("--level", "levels", multiple=True, type=click.Choice(["model", "layer", "operator", "kernel"]),
              help="How deep to look, each level in a run of its own; 'model' is always measured.")  # fmt: skip
@click.option("--sessions", type=click.IntRange(min=1), help="Fresh processes, the unit of replication.")
@store_option
@json_option
def command(
    choice: TaskChoice, levels: tuple[str, ...], sessions: int | None, store_url: str | None, as_json: bool
) -> None:
    """Measure TASK on this machine: latency with intervals, and by layer and operator when asked."""
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.measure.record import LEVELS
    from gnomon.report.terminal import print_measurement
    from gnomon.store.store import open_store

    task = choice.resolve()
    wanted = tuple(level for level in LEVELS if level == "model" or level in levels)
    arguments = {"levels": list(wanted), "sessions": sessions}
    with (
        open_store(store_url).begin("run", arguments, task=task.name, task_digest=task.digest) as run,
        Progress(f"measuring {task.name}") as progress,
    ):
        run.add(task)
        measurement = pipeline.measure(task, run, levels=wanted, sessions=sessions, progress=progress)
    if as_json:
        print_json(measurement)
    else:
        print_measurement(console(), measurement)
        console().print(f"stored as run {run.id}")
