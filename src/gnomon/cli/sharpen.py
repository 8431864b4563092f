"""`gnomon sharpen`: recipes tried, verified and judged."""

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, store_option, with_task


@click.command()
@with_task()
@click.option("--recipe", "recipes", multiple=True, metavar="NAME", help="Try only these, repeatable.")
@click.option("--sessions", type=click.IntRange(min=1), help="Fresh processes, the unit of replication.")
@store_option
@json_option
def command(
    choice: TaskChoice, recipes: tuple[str, ...], sessions: int | None, store_url: str | None, as_json: bool
) -> None:
    """Try recipes that make TASK faster; keep those that are faster beyond doubt and within the quality bound.

    Exit code 1 when no recipe was kept.
    """
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.core.errors import CheckFailed
    from gnomon.report.terminal import print_changes
    from gnomon.store.store import open_store

    task = choice.resolve()
    arguments = {"recipes": list(recipes), "sessions": sessions}
    with (
        open_store(store_url).begin("sharpen", arguments, task.name, task.digest) as run,
        Progress(f"sharpening {task.name}") as progress,
    ):
        run.add(task)
        changes, _ = pipeline.sharpen(task, run, recipes=recipes or None, sessions=sessions, progress=progress)
    if as_json:
        print_json({"run": run.id, "changes": changes})
    else:
        print_changes(console(), changes)
    if not any(change.verdict == "kept" for change in changes):
        raise CheckFailed("no recipe was kept; the table says why")
