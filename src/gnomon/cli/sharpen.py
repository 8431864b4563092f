"""`gnomon sharpen`: recipes tried, verified and judged."""

import click

from gnomon.cli._common import json_option, parse_dims, print_json, store_option, task_options


@click.command()
@task_options
@click.option("--recipe", "recipes", multiple=True, metavar="NAME", help="Try only these, repeatable.")
@click.option("--sessions", type=click.IntRange(min=1), help="Fresh processes, the unit of replication.")
@store_option
@json_option
def command(task: str, recipes: tuple[str, ...], sessions: int | None, batch: int | None, seqlen: int | None,
            dims: tuple[str, ...], dtype: str | None, trust: bool, store_url: str | None,
            as_json: bool) -> None:  # fmt: skip
    """Try recipes that make TASK faster; keep those that are faster beyond doubt and within the quality bound.

    Exit code 1 when no recipe was kept.
    """
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.core.errors import CheckFailed
    from gnomon.report.terminal import print_changes
    from gnomon.spec.resolve import resolve
    from gnomon.store.store import open_store

    resolved = resolve(task, dims=parse_dims(batch, seqlen, dims), dtype=dtype, trust=trust)
    arguments = {"recipes": list(recipes), "sessions": sessions}
    with (
        open_store(store_url).begin("sharpen", arguments, resolved.name, resolved.digest) as run,
        Progress(f"sharpening {resolved.name}") as progress,
    ):
        run.add(resolved)
        changes, _ = pipeline.sharpen(resolved, run, recipes=recipes or None, sessions=sessions, progress=progress)
    if as_json:
        print_json({"run": run.id, "changes": changes})
    else:
        print_changes(console(), changes)
    if not any(change.verdict == "kept" for change in changes):
        raise CheckFailed("no recipe was kept; the table says why")
