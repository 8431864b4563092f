"""gnomon db: look into the store of results, take results out, put them back, and check that nothing is damaged."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gnomon.cli._common import console, json_option, print_json, progress_console, store_option

if TYPE_CHECKING:
    from gnomon.store.store import ResultRow, RunRow, Store


@click.group()
def command() -> None:
    """The store of results: list, show, export, import, check."""


@command.command("list")
@click.option("--task", help="Only runs of this task.")
@click.option("--status", type=click.Choice(["running", "done", "failed", "broken"]), help="Only runs of this status.")
@click.option("--outcome", metavar="NAME", help="Only runs that ended so, e.g. child-died (see `db outcomes`).")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many runs.")
@store_option
@json_option
def list_(
    task: str | None, status: str | None, outcome: str | None, limit: int, store_url: str | None, as_json: bool
) -> None:
    """The runs, newest first, each with its outcome.

    A run is 'broken' when its process was killed; what it stored before is complete.
    """
    store = _open(store_url)
    rows = store.runs(limit=limit, task=task, status=status, outcome=outcome)
    if as_json:
        print_json({"store": store.place, "runs": rows})
        return
    if not rows:
        progress_console().print(f"no such runs in {store.place}", soft_wrap=True, highlight=False)
        return
    names = ("run", "took", "outcome", "command", "task", "results")  # the run's id says when it began, in UTC
    cells = [(row.id, _took(row), row.outcome or row.status, row.command, row.task, str(row.results)) for row in rows]
    _print_table(names, cells, [row.status in ("failed", "broken") for row in rows])


@command.command()
@json_option
def outcomes(as_json: bool) -> None:
    """The names under which the store keeps how a run ended."""
    from gnomon.core.errors import OUTCOMES

    if as_json:
        print_json(OUTCOMES)
    else:
        _print_pairs(list(OUTCOMES.items()))


@command.command()
@click.argument("name", metavar="ID")
@store_option
@json_option
def show(name: str, store_url: str | None, as_json: bool) -> None:
    """A run with its results, or one result.

    ID is a run (its id, the beginning of it, its last six letters, or 'last'), or a result: RUN/POSITION or its number.
    With --json a result's complete record is printed.
    """
    store = _open(store_url)
    result = _result(store, name)
    if result is not None:
        document = store.document(result.id)
        if as_json:
            print_json({"result": result, "record": document})
        else:
            _print_result(result, document)
        return
    run = store.run(name)
    rows = store.results(run_id=run.id)
    if as_json:
        print_json({"run": run, "results": rows})
        return
    _print_run(run, rows)


@command.command("export")
@click.argument("run", required=False)
@click.option(
    "--format", "format_", type=click.Choice(["jsonl", "csv", "sqlite"]), default="jsonl", show_default=True,
    help="jsonl: complete, for `gnomon db import`. csv: for spreadsheets. sqlite: a store of its own.",
)  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write; it must not exist.")
@store_option
@json_option
def export_(run: str | None, format_: Any, out: Path, store_url: str | None, as_json: bool) -> None:
    """Write all runs, or one RUN, to a file."""
    from gnomon.store.export import export

    store = _open(store_url)
    moved = export(store, out, format_, None if run is None else store.run(run).id)
    if as_json:
        print_json({"file": str(out), "runs": moved.runs, "results": moved.results})
    else:
        click.echo(f"{moved.runs} runs with {moved.results} results written to {out}")


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@store_option
@json_option
def import_(file: Path, store_url: str | None, as_json: bool) -> None:
    """Restore the runs of a jsonl FILE: all of them or, when the file is damaged, none."""
    from gnomon.store.export import import_jsonl
    from gnomon.store.store import open_store

    store = open_store(store_url)
    moved = import_jsonl(store, file)
    if as_json:
        print_json({"store": store.place, **_fields(moved)})
    else:
        click.echo(f"{moved.runs} runs with {moved.results} results restored, {moved.skipped} were there already")


@command.command()
@store_option
@json_option
@click.pass_context
def check(ctx: click.Context, store_url: str | None, as_json: bool) -> None:
    """Read all of the store: is everything what was written? Exit code 4 when something is damaged."""
    from gnomon.core.errors import DamagedData
    from gnomon.store.check import check as look

    store = _open(store_url)
    found = look(store)
    if as_json:
        print_json({"store": store.place, "sound": not found.problems, **_fields(found)})
    else:
        click.echo(f"{store.place}: {found.runs} runs, {found.results} results, {len(found.problems)} problems")
        for problem in found.problems:
            click.echo(f"  damaged: {problem}")
        for run in found.broken:
            click.echo(f"  broken run {run}: its process died; what it stored before is complete")
    if found.problems:
        ctx.exit(DamagedData.exit_code)


def _open(url: str | None) -> "Store":
    """The store, which must exist when the user named it: a slip of the pen should not create one."""
    from gnomon.store.store import open_store

    return open_store(url, must_exist=url is not None)


def _result(store: "Store", name: str) -> "ResultRow | None":
    from gnomon.core.errors import UnknownName

    run, slash, position = name.rpartition("/")
    if slash:
        rows = store.results(run_id=store.run(run).id)
        if not position.isdecimal() or int(position) >= len(rows):
            raise UnknownName(f"run {run} has {len(rows)} results, counted from 0; got {position!r}")
        return rows[int(position)]
    return store.result(int(name)) if name.isdecimal() and len(name) < 6 else None  # six digits may name a run


def _print_run(run: Any, rows: "list[ResultRow]") -> None:
    from gnomon.core.digest import canonical_json

    pairs = [("run", run.id), ("status", run.status), ("outcome", run.outcome)]
    pairs += [("command", f"{run.command} {canonical_json(run.arguments)}")]
    pairs += [("task", run.task), ("started", run.started_at), ("ended", run.ended_at), ("error", run.error)]
    _print_pairs([*pairs, ("gnomon", run.gnomon_version)])
    names = ("", "kind", "task", "device", "variant", "latency", "speed-up", "verdict")
    if rows:
        _print_table(names, [_cells(row) for row in rows], [False] * len(rows))


def _cells(row: "ResultRow") -> tuple[str, ...]:
    from gnomon.core.units import format_seconds

    latency = "" if row.latency_s is None else format_seconds(row.latency_s)
    speedup = "" if row.speedup is None else f"{row.speedup:.2f}x"
    known = (row.task or "", row.device or "", row.variant or "")
    return (str(row.position), row.kind, *known, latency, speedup, row.verdict or "")


def _print_result(row: "ResultRow", document: dict[str, Any]) -> None:
    pairs = [("result", f"{row.run_id}/{row.position}"), ("record", row.schema), ("digest", row.digest)]
    for key, value in document.items():
        if key != "schema":
            size = len(value) if isinstance(value, list | dict) else 0
            few = not size or len(str(value)) <= 100
            pairs.append((key, str(value) if few else f"({size} entries; --json shows them)"))
    _print_pairs(pairs)


def _print_pairs(pairs: Sequence[tuple[str, str | None]]) -> None:
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        if value:
            click.echo(f"{name.ljust(width)}  {value}")


def _took(row: "RunRow") -> str:
    from datetime import datetime

    from gnomon.core.units import format_seconds

    if row.ended_at is None:
        return ""
    return format_seconds(
        (datetime.fromisoformat(row.ended_at) - datetime.fromisoformat(row.started_at)).total_seconds()
    )


def _fields(value: Any) -> dict[str, Any]:
    from gnomon.core.records import to_json

    fields: dict[str, Any] = to_json(value)
    return fields


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], is_red: Sequence[bool]) -> None:
    """One line for each row: on a narrow terminal long names are cut short, everything else stays whole."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    names = ("command", "task", "device", "variant")
    longest = {
        name: max(map(len, (name, *cells))) for name, cells in zip(columns, zip(*rows, strict=True), strict=True)
    }
    left = out.width - sum(width for name, width in longest.items() if name not in names) - 2 * len(columns)
    share = max(8, left // sum(name in names for name in columns))
    table = Table(box=None, pad_edge=False)
    for name in columns:
        right = name in ("results", "latency", "speed-up")
        table.add_column(name, no_wrap=True, justify="right" if right else "left")
    for row, red in zip(rows, is_red, strict=True):
        cut = [c[: share - 1] + "…" if n in names and len(c) > share else c for n, c in zip(columns, row, strict=True)]
        table.add_row(*map(Text, cut), style="red" if red else None)
    out.print(table)
