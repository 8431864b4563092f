"""`gnomon report`: a stored examination as a page again."""

from pathlib import Path

import click

from gnomon.cli._common import json_option, print_json, store_option


@click.command()
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path), default=Path("gnomon-report"), show_default=True,
              help="Folder for report.html, trace.json and task.lock.")  # fmt: skip
@store_option
@json_option
def command(run: str, out: Path, store_url: str | None, as_json: bool) -> None:
    """Write the report of the stored examination RUN (see `gnomon db list`) again, without measuring anything."""
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.report.terminal import print_examination
    from gnomon.store.store import open_store

    examination = pipeline.recall(open_store(store_url), run)
    path = pipeline.write(examination, out)
    if as_json:
        print_json({"run": examination.run_id, "report": str(path)})
    else:
        print_examination(console(), examination, path=path)
