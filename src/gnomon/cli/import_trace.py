"""`gnomon import trace`: spans that another tool recorded, in our levels and in the store."""

from pathlib import Path

import click

from gnomon.cli._common import json_option, print_json, store_option


@click.command("trace")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--lenient", is_flag=True, help="Import what can be saved of a damaged trace, and say what was lost or kept."
)
@store_option
@json_option
def trace(file: Path, lenient: bool, store_url: str | None, as_json: bool) -> None:
    """Import the spans of FILE: Chrome or Perfetto JSON (torch.profiler, Gnomon), or OTLP JSON; also gzipped.

    A trace that is cut off, overlaps itself or runs backwards is refused with exit code 4, and the store keeps why.
    """
    from collections import Counter

    from gnomon import pipeline
    from gnomon.measure.record import SPAN_LEVELS
    from gnomon.store.store import open_store

    store = open_store(store_url)
    with store.begin("import trace", {"file": file, "lenient": lenient}, task=file.name) as run:
        imported = pipeline.import_trace(file, run, lenient)
    counts = Counter(span.level for span in imported.spans)
    levels = {level: counts[level] for level in SPAN_LEVELS if counts[level]}
    if as_json:
        facts = {"run": run.id, "name": imported.name, "origin": imported.origin, "spans": len(imported.spans)}
        print_json({**facts, "levels": levels, "warnings": imported.warnings})
        return
    for warning in imported.warnings:
        click.echo(f"warning: {warning}", err=True)
    listed = ", ".join(f"{count} {level}" for level, count in levels.items()) or "none"
    click.echo(f"{len(imported.spans)} spans ({listed}) stored as run {run.id}")
