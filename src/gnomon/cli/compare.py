"""`gnomon compare`: which of two is faster, or do they not differ."""

import click

from gnomon.cli._common import json_option, parse_dims, print_json, store_option
from gnomon.cli._comparing import (
    clock_option,
    margin_option,
    most_option,
    run_or_task,
    sessions_option,
    sessions_or_looks,
)


@click.command()
@click.argument("first")
@click.argument("second", required=False)
@click.option("--recipe", "recipes", multiple=True, metavar="NAME",
              help="Time these recipes and the plain task interleaved; FIRST is then a task.")  # fmt: skip
@sessions_option
@most_option
@margin_option
@clock_option
@click.option("--batch", type=click.IntRange(min=1), help="Size of the dimension B.")
@click.option("--seqlen", type=click.IntRange(min=1), help="Size of the dimension L (tokens).")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of any named dimension.")
@click.option("--trust", is_flag=True, help="Allow manifests to import code from their own folders.")
@store_option
@json_option
def command(first: str, second: str | None, recipes: tuple[str, ...], sessions: int | str, most: int, margin: float,
            clock: str | None, batch: int | None, seqlen: int | None, dims: tuple[str, ...], trust: bool,
            store_url: str | None, as_json: bool) -> None:  # fmt: skip
    """Is SECOND faster or slower than FIRST, or no different?

    FIRST and SECOND are two tasks (names or manifests: two models, or one at two commits), timed here and now in
    processes that take turns; or two stored runs; or FIRST is a task and --recipe names what to try on it, timed call
    by call in the same processes. The verdict is faster, slower, no difference within the margin, or undecided, and the
    answer always says which difference could not have been seen. Stored runs were taken at different times: what else
    differs between them is listed.
    """
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.core.errors import UsageError
    from gnomon.report.terminal import print_comparison, print_stored_comparison
    from gnomon.spec.task import Task
    from gnomon.store.store import open_store

    store = open_store(store_url)
    if (second is None) == (not recipes):
        raise UsageError(
            "wanted two tasks or two stored runs (gnomon compare A B), or a task with --recipe (gnomon compare TASK "
            "--recipe bf16)"
        )
    resolving = {"dims": parse_dims(batch, seqlen, dims), "trust": trust}
    sides = [run_or_task(store, name, **resolving) for name in (first, second) if name is not None]
    tasks = [side for side in sides if isinstance(side, Task)]
    if second is not None and not tasks:
        stored = pipeline.compare_stored(store, first, second, margin)
        if as_json:
            print_json(stored)
        else:
            print_stored_comparison(console(), stored)
        return
    if len(tasks) < len(sides):
        raise UsageError(
            f"wanted two tasks or two stored runs; of {first!r} and {second!r} one is a run and one a task. Measure "
            "the task first (gnomon run), or use gnomon gate --baseline RUN TASK"
        )
    options = {"sessions": sessions_or_looks(sessions, most), "margin": margin, "clock": clock}
    arguments = {"first": first, "second": second, "recipes": list(recipes), "sessions": sessions, "margin": margin}
    with (
        store.begin("compare", arguments, tasks[0].name, tasks[0].digest) as run,
        Progress(f"comparing {tasks[0].name}") as progress,
    ):
        for task in tasks:
            run.add(task)
        if recipes:
            comparison = pipeline.compare(tasks[0], run, recipes, **options, progress=progress)  # type: ignore[arg-type]
        else:
            named = dict(zip(_names(first, second or ""), tasks, strict=True))
            comparison = pipeline.compare_tasks(named, run, **options, progress=progress)  # type: ignore[arg-type]
    if as_json:
        print_json(comparison)
    else:
        print_comparison(console(), comparison)


def _names(first: str, second: str) -> tuple[str, str]:
    """What the two are called in the answer: as they were typed, told apart where that is the same."""
    return (first, second) if first != second else (f"{first} (A)", f"{second} (B)")
