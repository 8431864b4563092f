"""`gnomon run`: measure a task on this machine."""

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, store_option, with_task


@click.command()
@with_task(on_device=True)
@click.option("--level", "levels", multiple=True,
              type=click.Choice(["application", "model", "layer", "operator", "kernel", "library", "hardware", "all"]),
              help="Look at this level too, in a run of its own; else down to the task's trace_level. library: another "
              "name for kernel, on a CPU the calls of its libraries.")  # fmt: skip
@click.option("--sessions", type=click.IntRange(min=1), help="Fresh processes, the unit of replication.")
@click.option("--instructions", is_flag=True, help="Count instructions exactly under valgrind, for minutes.")
@store_option
@json_option
def command(
    choice: TaskChoice,
    levels: tuple[str, ...],
    sessions: int | None,
    instructions: bool,
    store_url: str | None,
    as_json: bool,
) -> None:
    """Measure TASK on this machine: latency with intervals, and by stage, layer, operator, kernel, counter."""
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.measure.record import LEVELS
    from gnomon.report.terminal import print_measurement
    from gnomon.store.store import open_store

    task = choice.resolve()
    asked = levels or LEVELS[LEVELS.index("model") : LEVELS.index(task.trace_level) + 1]
    names = set(LEVELS) if "all" in asked else {"kernel" if name == "library" else name for name in asked}
    wanted = tuple(level for level in LEVELS if level == "model" or level in names)
    arguments = {"levels": list(wanted), "sessions": sessions, "instructions": instructions}
    with (
        open_store(store_url).begin("run", arguments, task=task.name, task_digest=task.digest) as run,
        Progress(f"measuring {task.name}") as progress,
    ):
        run.add(task)
        measurement = pipeline.measure(
            task, run, levels=wanted, sessions=sessions, instructions=instructions, progress=progress
        )
    if as_json:
        print_json(measurement)
    else:
        print_measurement(console(), measurement)
        console().print(f"stored as run {run.id}")
