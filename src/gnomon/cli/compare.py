"""`gnomon compare`: which of two is faster, and is the difference real."""

import click

from gnomon.cli._common import json_option, parse_dims, print_json, store_option


@click.command()
@click.argument("first")
@click.argument("second", required=False)
@click.option("--recipe", "recipes", multiple=True, metavar="NAME",
              help="Time these recipes and the plain task interleaved; FIRST is then a task.")  # fmt: skip
@click.option("--sessions", type=click.IntRange(min=1), help="Fresh processes, the unit of replication.")
@click.option("--batch", type=click.IntRange(min=1), help="Size of the dimension B.")
@click.option("--seqlen", type=click.IntRange(min=1), help="Size of the dimension L (tokens).")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of any named dimension.")
@store_option
@json_option
def command(first: str, second: str | None, recipes: tuple[str, ...], sessions: int | None, batch: int | None,
            seqlen: int | None, dims: tuple[str, ...], store_url: str | None, as_json: bool) -> None:  # fmt: skip
    """Compare two stored measurements (FIRST and SECOND are runs), or recipes of one task interleaved (--recipe).

    Stored measurements were taken at different times: the answer lists what else differs between them.
    """
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.core.errors import UsageError
    from gnomon.report.terminal import print_comparison, print_stored_comparison
    from gnomon.spec.resolve import resolve
    from gnomon.store.store import open_store

    store = open_store(store_url)
    if (second is None) == (not recipes):
        raise UsageError("wanted two stored runs (gnomon compare RUN RUN), or a task with --recipe; see --help")
    if second is not None:
        stored = pipeline.compare_stored(store, first, second)
        if as_json:
            print_json(stored)
        else:
            print_stored_comparison(console(), stored)
        return
    task = resolve(first, dims=parse_dims(batch, seqlen, dims))
    with (
        store.begin("compare", {"recipes": list(recipes)}, task.name, task.digest) as run,
        Progress(f"comparing {task.name}") as progress,
    ):
        run.add(task)
        comparison = pipeline.compare(task, run, recipes, sessions=sessions, progress=progress)
    if as_json:
        print_json(comparison)
    else:
        print_comparison(console(), comparison)
