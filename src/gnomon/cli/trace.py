"""`gnomon trace`: one call as a timeline that Perfetto and Chrome open."""

from pathlib import Path

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, store_option, with_task


@click.command()
@with_task(on_device=True)
@click.option("--level", type=click.Choice(["layer", "operator", "kernel"]), default="operator", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: TASK-trace.json.")
@store_option
@json_option
def command(choice: TaskChoice, level: str, out: Path | None, store_url: str | None, as_json: bool) -> None:
    """Trace one call of TASK down to a level and write it in the Chrome trace format (open it in ui.perfetto.dev)."""
    from gnomon import pipeline
    from gnomon.cli._progress import Progress
    from gnomon.measure.record import LEVELS
    from gnomon.report.trace import write_trace
    from gnomon.store.store import open_store

    task = choice.resolve()
    path = out or Path(f"{task.name}-trace.json")
    levels = LEVELS[LEVELS.index("model") : LEVELS.index(level) + 1]  # each gives the merged call its own times
    with (
        open_store(store_url).begin("trace", {"level": level}, task=task.name, task_digest=task.digest) as run,
        Progress(f"tracing {task.name}") as progress,
    ):
        run.add(task)
        measurement = pipeline.measure(task, run, levels=levels, sessions=1, progress=progress)
    write_trace(path, measurement)
    if as_json:
        print_json({"run": run.id, "trace": str(path), "spans": len(measurement.spans)})
    else:
        click.echo(f"{len(measurement.spans)} spans in {path}; open it in ui.perfetto.dev or chrome://tracing")
