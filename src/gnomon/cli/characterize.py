"""`gnomon characterize`: where a kind of model spends its time here, and whether what papers say of it holds."""

import json
from pathlib import Path

import click

from gnomon.cli._common import console, json_option, print_json, store_option


@click.command()
@click.argument("family", type=click.Choice(["gcn"]))
@click.option("--profile", type=click.Choice(["reduced", "full"]), default="reduced", show_default=True,
              help="reduced: about a minute of CPU time.")  # fmt: skip
@click.option("--model", "models", multiple=True, metavar="NAME", help="gcn, graphsage, gin or gat; repeatable.")
@click.option("--graph", "graphs", multiple=True, metavar="NAME",
              help="cora, citeseer, pubmed, reddit, imdb-bin, collab, 'cora (file)'; repeatable.")  # fmt: skip
@click.option("--sessions", type=click.IntRange(min=1), help="Fresh processes. Default: as the profile says.")
@click.option("--explore/--no-explore", default=True, show_default=True,
              help="Also widths, orders, implementations, degrees, batches and sampling.")  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the record as JSON."
)
@store_option
@json_option
def command(
    family: str,
    profile: str,
    models: tuple[str, ...],
    graphs: tuple[str, ...],
    sessions: int | None,
    explore: bool,
    out: Path | None,
    store_url: str | None,
    as_json: bool,
) -> None:
    """Split graph networks into aggregation and combination, and measure both on generated graphs of published sizes.

    Each guideline of the characterization papers becomes a check (holds, does not hold, cannot be seen here) and, where
    it pays here, advice. One thread, CPU time. The real Cora joins where GNOMON_DATA names a folder that has it.
    """
    from gnomon import pipeline
    from gnomon.cli._progress import Progress
    from gnomon.core.errors import UsageError
    from gnomon.core.records import to_json
    from gnomon.report.characterization import print_characterization
    from gnomon.store.store import open_store

    if out is not None and not out.parent.is_dir():
        raise UsageError(f"--out: the folder {out.parent} does not exist; make it first")
    arguments = {"family": family, "profile": profile, "models": models, "graphs": graphs, "sessions": sessions}
    with (
        open_store(store_url).begin("characterize", {**arguments, "explore": explore}) as run,
        Progress(f"characterizing {family}") as progress,
    ):
        found = pipeline.characterize_gcn(
            run, profile, models=models, graphs=graphs, sessions=sessions, explore=explore, progress=progress
        )
    if out is not None:
        out.write_text(json.dumps(to_json(found), indent=1, ensure_ascii=False) + "\n", "utf-8")
    if as_json:
        print_json(found)
        return
    print_characterization(console(), found)
    console().print(f"stored as run {run.id}")
