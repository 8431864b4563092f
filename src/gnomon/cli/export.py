"""`gnomon export`: a stored run for other tools."""

from pathlib import Path
from typing import Any

import click

from gnomon.cli._common import json_option, print_json, store_option

_WHOLE = ("jsonl", "sqlite")


@click.command()
@click.argument("run")
@click.option(
    "--format", "format_", required=True,
    type=click.Choice(["perfetto", "otlp", "parquet", "csv", "markdown", *_WHOLE]),
    help="perfetto: a trace for ui.perfetto.dev. otlp: OpenTelemetry. parquet, csv: a folder of tables. "
    "markdown: a summary. jsonl, sqlite: complete, as gnomon db export.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="The file, or folder of tables, to write; must not exist.")
@click.option("--endpoint", metavar="URL", help="otlp: send to a collector, e.g. http://localhost:4318/v1/traces.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="otlp: sent with every request.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=10.0, show_default=True,
              help="otlp: seconds to wait for the collector.")  # fmt: skip
@store_option
@json_option
def command(
    run: str, format_: Any, out: Path | None, endpoint: str | None, headers: tuple[str, ...], timeout_s: float,
    store_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Export RUN (see `gnomon db list`; 'last' is the newest), or one result of it (RUN/POSITION).

    Exit code 1 when a collector took only some of the spans, 3 when it cannot be reached or refuses.
    """
    from gnomon import pipeline
    from gnomon.core.errors import CheckFailed, UsageError
    from gnomon.store.store import open_store

    if endpoint is not None and format_ != "otlp":
        raise UsageError(f"--endpoint is for --format otlp; {format_} goes to --out")
    if endpoint is not None and out is not None:
        raise UsageError("give --endpoint or --out, not both")
    store = open_store(store_url, must_exist=store_url is not None)
    if format_ in _WHOLE:
        from gnomon.store.export import export

        if out is None:
            raise UsageError("say where to with --out")
        export(store, out, format_, store.run(run).id)
        done = pipeline.Exported(store.run(run).id, str(out), store.run(run).results, 0)
    else:
        done = pipeline.export_run(store, run, format_, out, endpoint, _parsed(headers), timeout_s)
    if as_json:
        print_json(done)
    else:
        what = f"{done.spans} spans" if format_ in ("perfetto", "otlp") else f"{done.records} records"
        tables = f" as {', '.join(done.tables)}" if done.tables else ""
        click.echo(f"{what} of run {done.run}{tables} {'sent to' if endpoint else 'written to'} {done.place}")
    if done.rejected or done.messages:
        told = f": {'; '.join(done.messages)}" if done.messages else ""
        if done.rejected:
            raise CheckFailed(f"the collector took {done.spans - done.rejected} of {done.spans} spans{told}")
        click.echo(f"the collector remarks{told}", err=True)


def _parsed(headers: tuple[str, ...]) -> dict[str, str]:
    from gnomon.core.errors import UsageError

    parsed = {}
    for text in headers:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or "\n" in text or "\r" in text:
            raise UsageError(f"wanted --header NAME=VALUE, got {text!r}")
        parsed[name.strip()] = value.strip()
    return parsed
