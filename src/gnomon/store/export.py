"""Take results out of the store, and put them back.

jsonl: one JSON document a line, complete: a head, then each run followed by its results. csv: the columns of lists, one
result a line, for spreadsheets. sqlite: a store of its own, to be opened with --store.
"""

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TextIO

import sqlalchemy as sa

from gnomon.core.errors import OUTCOMES, DamagedData, UsageError
from gnomon.core.records import StructureError, structure, to_json
from gnomon.store.connect import reading, writing
from gnomon.store.kinds import COLUMNS
from gnomon.store.schema import results, runs
from gnomon.store.store import Packed, ResultRow, RunRow, Store, open_store, pack, run_values, unpack

Format = Literal["jsonl", "csv", "sqlite"]
_HEAD = {"gnomon": "store export", "version": 2}  # 1: runs had no outcome
_RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Moved:
    """How much went out or came in. skipped: runs that were there already."""

    runs: int
    results: int
    skipped: int = 0


def export(store: Store, out: Path, format: Format, run_id: str | None = None) -> Moved:
    """Write all runs, or one, to a new file, which appears only when it is complete.

    Raises UsageError when `out` exists or its folder does not, DamagedData when a result is not what was written.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; nothing is overwritten. Remove it or choose another name")
    if not out.parent.is_dir():
        raise UsageError(f"the folder {out.parent} does not exist; make it first")
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        if format == "sqlite":
            moved = _restore(open_store(str(part)), _packed(store, run_id))
        else:
            with part.open("w", encoding="utf-8", newline="" if format == "csv" else "\n") as file:
                moved = (write_csv if format == "csv" else write_jsonl)(store, file, run_id)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return moved


def write_jsonl(store: Store, file: TextIO, run_id: str | None = None) -> Moved:
    """Complete records, one JSON document a line; `import_jsonl` restores them. Raises DamagedData."""
    moved = Moved(0, 0)
    print(_line(_HEAD), file=file)
    for run, items in _packed(store, run_id):
        print(_line({"run": to_json(run)}), file=file)
        for position, item in enumerate(items):
            record = unpack(item.payload, item.digest, f"result {position} of run {run.id}")
            print(_line({"position": position, "digest": item.digest, "record": record}), file=file)
        moved = Moved(moved.runs + 1, moved.results + run.results)
    return moved


def write_csv(store: Store, file: TextIO, run_id: str | None = None) -> Moved:
    """The columns of lists, one result a line, with what is known of its run."""
    of_run = ("started_at", "status", "command", "gnomon_version", "outcome")
    names = [field.name for field in fields(ResultRow)]
    known = {run.id: run for run in store.runs(limit=None)}
    rows = store.results(run_id=run_id)
    table = csv.writer(file)
    table.writerow([*names, *of_run])
    for row in rows:
        table.writerow([getattr(row, name) for name in names] + [getattr(known[row.run_id], name) for name in of_run])
    return Moved(len({row.run_id for row in rows}), len(rows))


def import_jsonl(store: Store, path: Path) -> Moved:
    """Restore what `write_jsonl` wrote: all of the file, or nothing. A run that is there already is skipped.

    Raises UsageError when there is no such file, when it is no export, or when a run is there with other results;
    DamagedData, with the line, when it was cut off or altered.
    """
    try:
        with path.open("rb") as file:
            if file.read(16) == b"SQLite format 3\0":
                raise UsageError(f"{path} is a store itself: open it with --store {path}")
            file.seek(0)
            return _restore(store, _parsed(path, file))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _packed(store: Store, run_id: str | None) -> Iterator[tuple[RunRow, Iterator[Packed]]]:
    """Runs, oldest first, each with its results as they are stored."""
    with reading(store.engine) as connection:
        for run in [store.run(run_id)] if run_id is not None else reversed(store.runs(limit=None)):
            query = results.select().where(results.c.run_id == run.id, results.c.position < run.results)
            rows = connection.execution_options(yield_per=10).execute(query.order_by(results.c.position))
            yield run, map(_sound, rows)


def _sound(row: sa.Row[Any]) -> Packed:
    unpack(row.payload, row.digest, f"result {row.position} of run {row.run_id}")  # a copy must not launder damage
    return Packed(row.kind, row.schema, row.digest, row.payload, {name: getattr(row, name) for name in COLUMNS})


def _parsed(path: Path, file: Iterable[bytes]) -> Iterator[tuple[RunRow, Iterator[Packed]]]:
    lines = _documents(path, file)
    head = next(lines, (1, None))[1]
    if not isinstance(head, dict) or head.get("gnomon") != _HEAD["gnomon"]:
        raise UsageError(f"{path}:1: this is no export of a store; wanted the line {_line(_HEAD)}")
    if head not in (_HEAD, {**_HEAD, "version": 1}):
        text = f"{path}:1: wanted version 1 or {_HEAD['version']}, got {head.get('version')!r}; upgrade gnomon"
        raise DamagedData(text, outcome="unknown-version")
    for number, document in lines:
        try:
            run = structure(RunRow, document["run"])
        except (StructureError, KeyError, TypeError) as error:
            raise DamagedData(f"{path}:{number}: wanted a run, got something else ({error})") from error
        if run.outcome is not None and run.outcome not in OUTCOMES:
            raise DamagedData(f"{path}:{number}: run {run.id} has the outcome {run.outcome!r}, which there is not")
        if not _RUN_ID.fullmatch(run.id) or run.results < 0:
            raise DamagedData(f"{path}:{number}: no run has the id {run.id!r} and {run.results} results")
        yield run, _parsed_results(path, lines, run)


def _parsed_results(path: Path, lines: Iterator[tuple[int, Any]], run: RunRow) -> Iterator[Packed]:
    for position in range(run.results):
        item = next(lines, None)
        if item is None:
            raise DamagedData(f"{path} was cut off: run {run.id} has {run.results} results, {position} are here")
        number, document = item
        try:
            packed = pack(document["record"])
            wanted = (position, document["digest"])
            found = (document["position"], packed.digest)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise DamagedData(f"{path}:{number}: wanted result {position} of run {run.id} ({error})") from error
        if found != wanted:
            raise DamagedData(
                f"{path}:{number}: altered: wanted result {wanted[0]} {wanted[1]}, got {found[0]} {found[1]}"
            )
        yield packed


def _documents(path: Path, file: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, start=1):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            kind = UsageError if number == 1 else DamagedData
            raise kind(f"{path}:{number}: this is no line of an export; was the file cut off? ({error})") from error


def _restore(store: Store, source: Iterator[tuple[RunRow, Iterator[Packed]]]) -> Moved:
    moved = Moved(0, 0)
    with writing(store.engine) as connection:
        for run, items in source:
            if connection.execute(sa.select(runs.c.id).where(runs.c.id == run.id)).first() is not None:
                query = sa.select(results.c.digest).where(results.c.run_id == run.id).order_by(results.c.position)
                if [item.digest for item in items] != list(connection.execute(query).scalars()):
                    raise UsageError(f"run {run.id} is in {store.place} already, with other results; nothing imported")
                moved = replace(moved, skipped=moved.skipped + 1)
                continue
            if run.status == "running":  # whoever writes it does not write it here
                run = replace(run, status="broken", outcome="killed", error="was still running when it was exported")
            elif run.outcome is None:
                run = replace(run, outcome={"done": "done", "broken": "killed"}.get(run.status, "error"))
            connection.execute(runs.insert(), run_values(run))
            for item in items:
                store.insert(connection, run.id, item)
            moved = replace(moved, runs=moved.runs + 1, results=moved.results + run.results)
    return moved


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
