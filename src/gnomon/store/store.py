"""The store: runs, and the results that each added. Nothing is ever changed or deleted; only a run's status moves on.

with open_store().begin("run", {"task": "sentence-embedding"}) as run:
    run.add(measurement)
"""

import contextlib
import glob
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import sqlalchemy as sa

from gnomon._version import __version__
from gnomon.core import paths
from gnomon.core.digest import canonical_json
from gnomon.core.errors import (
    OUTCOMES,
    DamagedData,
    GnomonError,
    NotRunnable,
    UnknownName,
    UsageError,
    did_you_mean,
    outcome_of,
)
from gnomon.core.records import to_json
from gnomon.store import kinds
from gnomon.store.connect import engine_for, reading, shown, writing
from gnomon.store.migrate import upgrade
from gnomon.store.schema import STATUSES, results, runs
from gnomon.store.writer import Writer, is_gone, this_process

Status = Literal["running", "done", "failed", "broken"]
_LAST_WORD = re.compile(r"-(?P<run>\d{8}-\d{6}-[0-9a-f]{6})\.(?P<outcome>[a-z-]+)")


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run. started_at, ended_at: ISO 8601 in UTC. arguments: what the command was called with.

    status 'broken': the process that wrote it died. host, boot, pid, process_started: see `writer.Writer`.
    error: the message of what ended it. outcome: that in one word, out of `core.errors.OUTCOMES`; None while it runs.
    results: how many there are.
    """

    id: str
    started_at: str
    ended_at: str | None
    status: Status
    command: str
    arguments: Mapping[str, Any]
    task: str
    task_digest: str
    gnomon_version: str
    host: str
    boot: str
    pid: int
    process_started: str
    error: str | None
    outcome: str | None = None
    results: int = 0


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A result without its record: what lists show. latency_s: seconds per call; the median where it was measured."""

    id: int
    run_id: str
    position: int
    kind: str
    schema: str
    digest: str
    task: str | None
    task_digest: str | None
    device: str | None
    variant: str | None
    latency_s: float | None
    speedup: float | None
    verdict: str | None


@dataclass(frozen=True, slots=True)
class Packed:
    """A record as the store keeps it: the SHA-256 of its canonical JSON, that JSON compressed, and its columns."""

    kind: str
    schema: str
    digest: str
    payload: bytes
    columns: Mapping[str, str | float | None]


def open_store(url: str | None = None, *, must_exist: bool = False) -> "Store":
    """The store at a path or URL (sqlite:///PATH, postgresql://...), created or migrated as needed.

    None: `$GNOMON_STORE`, else gnomon.db in Gnomon's home folder. must_exist: do not create a SQLite file.
    Raises UsageError for a URL that is none, NotRunnable when it cannot be opened here, DamagedData when what is there
    is no store or a newer Gnomon's.
    """
    location = url or os.environ.get("GNOMON_STORE") or str(paths.home() / "gnomon.db")
    if must_exist and "://" not in location and not Path(location).expanduser().exists():
        raise NotRunnable(f"there is no store at {location}. Give the path of one with --store")
    engine = engine_for(location)
    upgrade(engine)
    return Store(engine)


class Store:
    """An open store. Made by `open_store`; safe to use from several threads and processes at once."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @property
    def place(self) -> str:
        """Where it is, for people: a path, or a URL without its password."""
        return shown(self.engine.url)

    def begin(self, command: str, arguments: Mapping[str, Any], task: str = "", task_digest: str = "") -> "Run":
        """Start a run. arguments: anything that JSON can hold; paths become text."""
        now = datetime.now(UTC)
        row = RunRow(
            id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
            started_at=_stamp(now),
            ended_at=None,
            status="running",
            command=command,
            arguments=to_json({key: _plain(item) for key, item in arguments.items()}),
            task=task,
            task_digest=task_digest,
            gnomon_version=__version__,
            **this_process()._asdict(),
            error=None,
        )
        with writing(self.engine) as connection:
            connection.execute(runs.insert(), run_values(row))
        return Run(self, row.id)

    def runs(
        self,
        limit: int | None = 50,
        task: str | None = None,
        status: str | None = None,
        outcome: str | None = None,
    ) -> list[RunRow]:
        """The newest runs first. limit: None for all. Raises UsageError for a status or outcome that there is not."""
        if status is not None and status not in STATUSES:
            known = ", ".join(STATUSES)
            raise UsageError(f"no run has the status {status!r}.{did_you_mean(status, STATUSES)} Known: {known}")
        if outcome is not None and outcome not in OUTCOMES:
            known = ", ".join(OUTCOMES)
            raise UsageError(f"no outcome is called {outcome!r}.{did_you_mean(outcome, OUTCOMES)} Known: {known}")
        self.mark_broken()
        query = _runs_query().order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
        query = query if task is None else query.where(runs.c.task == task)
        query = query if status is None else query.where(runs.c.status == status)
        query = query if outcome is None else query.where(runs.c.outcome == outcome)
        with reading(self.engine) as connection:
            return [_run_row(row) for row in connection.execute(query)]

    def run(self, id_or_prefix: str) -> RunRow:
        """The run of this id, or the only one whose id, or its last part, begins so; 'last' is the newest.

        Raises UnknownName when no run, or more than one, is meant.
        """
        if id_or_prefix == "last":
            newest = self.runs(limit=1)
            if not newest:
                raise UnknownName(f"store {self.place} has no runs yet")
            return newest[0]
        self.mark_broken()
        ending = sa.func.substr(runs.c.id, len("20260101-000000-") + 1)
        begins = [column.startswith(id_or_prefix, autoescape=True) for column in (runs.c.id, ending)]
        with reading(self.engine) as connection:
            found = connection.execute(_runs_query().where(sa.or_(*begins)).limit(6)).all() if id_or_prefix else []
        exact = [row for row in found if row.id == id_or_prefix] or found
        if len(exact) == 1:
            return _run_row(exact[0])
        if exact:
            names = ", ".join(row.id for row in exact[:5])
            raise UnknownName(f"{id_or_prefix!r} could be any of {names}. Write more of it")
        raise UnknownName(f"no run is called {id_or_prefix!r} in {self.place}. `gnomon db list` shows what is there")

    def results(self, run_id: str | None = None, kind: str | None = None, task: str | None = None) -> list[ResultRow]:
        """Results without their records, in the order in which they were added."""
        columns = [column for column in results.c if column is not results.c.payload]
        query = sa.select(*columns).order_by(results.c.id)
        for column, value in ((results.c.run_id, run_id), (results.c.kind, kind), (results.c.task, task)):
            query = query if value is None else query.where(column == value)
        with reading(self.engine) as connection:
            return [ResultRow(**row._mapping) for row in connection.execute(query)]

    def result(self, result_id: int) -> ResultRow:
        """One result without its record. Raises UnknownName."""
        columns = [column for column in results.c if column is not results.c.payload]
        with reading(self.engine) as connection:
            row = connection.execute(sa.select(*columns).where(results.c.id == result_id)).first()
        if row is None:
            raise UnknownName(f"no result has the number {result_id} in {self.place}. `gnomon db show RUN` lists them")
        return ResultRow(**row._mapping)

    def load(self, result_id: int) -> Any:
        """The record behind a result.

        Raises UnknownName, and DamagedData when it is not what was written or when no class of this version reads it.
        """
        return kinds.read(self.document(result_id))

    def document(self, result_id: int) -> dict[str, Any]:
        """The record behind a result as plain JSON, its digest checked. Raises UnknownName, DamagedData."""
        query = sa.select(results.c.digest, results.c.payload).where(results.c.id == result_id)
        with reading(self.engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            raise UnknownName(f"no result has the number {result_id} in {self.place}. `gnomon db show RUN` lists them")
        return unpack(row.payload, row.digest, f"result {result_id} of {self.place}")

    def load_all(self, run_id: str, kind: str) -> list[Any]:
        """All records of one kind that a run added, in order."""
        return [self.load(row.id) for row in self.results(run_id=run_id, kind=kind)]

    def mark_broken(self) -> list[str]:
        """Mark the runs whose process is dead; returns their ids. A process of another host cannot be judged here.

        A run that left a last word beside the store, because the store could not take it, ends as that says.
        """
        self._hear_last_words()
        here = this_process()
        with reading(self.engine) as connection:
            query = sa.select(runs.c.id, *(runs.c[name] for name in Writer._fields))
            running = connection.execute(query.where(runs.c.status == "running", runs.c.host == here.host)).all()
        dead = [row.id for row in running if is_gone(Writer(row.host, row.boot, row.pid, row.process_started), here)]
        if dead:
            change = runs.update().where(runs.c.id.in_(dead), runs.c.status == "running")
            with writing(self.engine) as connection:
                values = {"status": "broken", "outcome": "killed", "error": "the process ended without a word"}
                connection.execute(change.values(values))
        return dead

    def leave_last_word(self, run_id: str, outcome: str) -> None:
        """Say how a run ended where the store itself cannot: an empty file whose name says it all.

        A full disk has room for a name where it has none for a page of the database. Only a SQLite store has a place
        for it; on a database server the run is marked when its process is gone.
        """
        if self.engine.dialect.name == "sqlite":
            with contextlib.suppress(OSError):
                Path(f"{self.place}-{run_id}.{outcome}").touch()

    def _hear_last_words(self) -> None:
        if self.engine.dialect.name != "sqlite":
            return
        place = Path(self.place)
        for path in place.parent.glob(f"{glob.escape(place.name)}-*.*"):
            said = _LAST_WORD.fullmatch(path.name.removeprefix(place.name))
            if said is None or said["outcome"] not in OUTCOMES:
                continue
            values = {"status": "failed", "outcome": said["outcome"], "error": OUTCOMES[said["outcome"]]}
            change = runs.update().where(runs.c.id == said["run"], runs.c.status == "running").values(values)
            try:
                with writing(self.engine) as connection:
                    connection.execute(change)
            except NotRunnable:  # still no room, or only a reader: the word stays for the next one
                return
            path.unlink(missing_ok=True)

    def insert(self, connection: sa.Connection, run_id: str, packed: Packed) -> int:
        """Add a packed record to a run inside a transaction that the caller holds; returns its number."""
        connection.execute(sa.select(runs.c.id).where(runs.c.id == run_id).with_for_update())  # on PostgreSQL: queue up
        last = connection.execute(sa.select(sa.func.max(results.c.position)).where(results.c.run_id == run_id)).scalar()
        values = {
            "run_id": run_id,
            "position": 0 if last is None else last + 1,
            "kind": packed.kind,
            "schema": packed.schema,
            "digest": packed.digest,
            "payload": packed.payload,
            **packed.columns,
        }
        key = connection.execute(results.insert(), values).inserted_primary_key
        assert key is not None
        return int(key[0])


class Run:
    """A run that is being written. As a context manager it ends as 'done', or as 'failed' with the error's message."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store, self.id = store, run_id

    def add(self, record: Any) -> int:
        """Store a record (any @record object) in one transaction; returns the number of the result.

        When this returns, the result is on the disk. Raises TypeError or ValueError for what is no record or cannot be
        written as JSON, NotRunnable when the disk is full, DamagedData when the store is damaged.
        """
        packed = pack(to_json(record))
        with writing(self._store.engine) as connection:
            return self._store.insert(connection, self.id, packed)

    def end(self, status: Status, error: str | None = None, outcome: str | None = None) -> None:
        """Close the run. outcome: one of `core.errors.OUTCOMES`; by default 'done' or 'error', as the status says."""
        if outcome is None:
            outcome = {"done": "done", "failed": "error", "broken": "killed"}.get(status)
        elif outcome not in OUTCOMES:
            raise ValueError(f"no outcome is called {outcome!r}.{did_you_mean(outcome, OUTCOMES)}")
        values = {"status": status, "ended_at": _stamp(datetime.now(UTC)), "error": error, "outcome": outcome}
        with writing(self._store.engine) as connection:
            connection.execute(runs.update().where(runs.c.id == self.id).values(values))

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.end("done")
            return
        outcome = outcome_of(error)
        try:
            self.end("failed", _clean(f"{type(error).__name__}: {error}".removesuffix(": ")), outcome)
        except GnomonError:  # the error that ended the run is the one to hear about
            self._store.leave_last_word(self.id, outcome)


def pack(document: Any) -> Packed:
    """A record's JSON made ready to be stored. Raises TypeError when it is no record's."""
    schema = document.get("schema") if isinstance(document, Mapping) else None
    if not isinstance(schema, str) or schema.count("/") != 2:
        raise TypeError(f"the store keeps records (classes marked with @record); got {type(document).__name__} without")
    text = canonical_json(document).encode()
    digest = "sha256:" + sha256(text).hexdigest()
    return Packed(kinds.kind_of(document), schema, digest, zlib.compress(text), kinds.hot(document))


def unpack(payload: bytes, digest: str, what: str) -> dict[str, Any]:
    """The JSON that was packed. what: its name in the message. Raises DamagedData when it is not what was written."""
    try:
        text = zlib.decompress(payload)
    except (zlib.error, TypeError) as error:
        raise DamagedData(f"{what} is damaged: it does not decompress ({error})") from error
    found = "sha256:" + sha256(text).hexdigest()
    if found != digest:
        raise DamagedData(f"{what} is damaged: wanted the digest {digest}, got {found}")
    document: dict[str, Any] = json.loads(text)
    return document


def iterate_payloads(connection: sa.Connection, run_id: str | None = None) -> Iterator[sa.Row[Any]]:
    """All columns of all results (of one run) in order, without holding more than a few payloads in memory."""
    query = results.select().order_by(results.c.id)
    query = query if run_id is None else query.where(results.c.run_id == run_id)
    yield from connection.execution_options(yield_per=10).execute(query)


def run_values(row: RunRow) -> dict[str, Any]:
    """A run as the values of its columns."""
    values = {column.name: getattr(row, column.name) for column in runs.c}
    return {**values, "arguments": canonical_json(row.arguments)}


def _runs_query() -> sa.Select[Any]:
    count = sa.select(sa.func.count()).where(results.c.run_id == runs.c.id).scalar_subquery()
    return sa.select(*runs.c, count.label("results"))


def _run_row(row: sa.Row[Any]) -> RunRow:
    try:
        arguments = json.loads(row.arguments)
    except ValueError as error:
        raise DamagedData(f"run {row.id}: its arguments are damaged ({error})") from error
    return replace(RunRow(**row._mapping), arguments=arguments)


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def _plain(value: Any) -> Any:
    if isinstance(value, Path | str):
        return _clean(str(value))
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _clean(text: str) -> str:
    """Text that both databases take: file names may hold bytes that are no UTF-8, PostgreSQL's text no zero byte."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
