"""From what the user wrote (a path or a URL) to a database engine, and from database errors to ours.

SQLite runs in WAL mode, so that readers and the writer do not stop each other, with `synchronous = FULL`: every commit
waits for the disk. A result took seconds to minutes to measure, a commit takes milliseconds; NORMAL would lose the last
results in a power cut. Write transactions begin IMMEDIATE: one that starts reading and then writes fails at once,
whatever the timeout, when another process wrote in between.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import NullPool

from gnomon.core.errors import DamagedData, GnomonError, NotRunnable, UsageError, did_you_mean

BUSY_S = 60.0  # how long a writer waits for another one
_DATABASES = ("sqlite", "postgresql")
_DAMAGED = {sqlite3.SQLITE_CORRUPT: "the file is damaged", sqlite3.SQLITE_NOTADB: "the file is no SQLite database"}
_HERE = {
    sqlite3.SQLITE_FULL: "the disk is full. Free some space, or keep results elsewhere with --store",
    sqlite3.SQLITE_READONLY: "it cannot be written. Give yourself the right to write, or choose another with --store",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Check the path and its rights, or choose another with --store",
    sqlite3.SQLITE_PERM: "you have no right to it. Choose another with --store",
    sqlite3.SQLITE_BUSY: f"another process has held it for over {BUSY_S:.0f} s. Try again when that one is done",
    sqlite3.SQLITE_LOCKED: "it is locked. Try again",
    sqlite3.SQLITE_IOERR: "the disk or file system refused to read or write. Try another place with --store",
    sqlite3.SQLITE_TOOBIG: "the record is larger than SQLite's limit of 1 GB. Record fewer calls or spans",
}


def engine_for(location: str) -> sa.Engine:
    """An engine for a path or URL, with a check that it can be reached.

    An engine keeps no connection between calls: nothing needs closing, and a forked child shares none.
    Raises UsageError for a URL of another kind, NotRunnable when the place or a package is missing, DamagedData when
    the file is no database.
    """
    url = _url(location)
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    try:
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    except ModuleNotFoundError as error:
        raise NotRunnable("a PostgreSQL store needs the package psycopg: pip install 'gnomon[postgres]'") from error


@contextlib.contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that only reads; database errors come out as GnomonError."""
    with _translated(engine.url), engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that writes: all of it happens, or nothing; database errors come out as GnomonError."""
    with _translated(engine.url), engine.execution_options(gnomon_writes=True).begin() as connection:
        yield connection


def shown(url: sa.URL) -> str:
    """A URL for people: the path of a SQLite file, else the URL without its password."""
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def _url(location: str) -> sa.URL:
    if "://" not in location:
        if not location or location == ":memory:":
            raise UsageError(f"wanted the path or URL of a store, got {location!r}; a store outlives the process")
        return sa.URL.create("sqlite", database=str(Path(location).expanduser().absolute()))
    try:
        url = sa.make_url(location)
    except (exc.ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise UsageError("the store's URL cannot be read; wanted e.g. postgresql://user@host/database") from error
    name = url.get_backend_name()
    if name == "postgres":
        name, url = "postgresql", url.set(drivername="postgresql")
    if name not in _DATABASES:
        near = did_you_mean(name, _DATABASES)
        raise UsageError(f"wanted a path, sqlite:///PATH or postgresql://...; got {name}://...{near}")
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError("wanted a file behind sqlite:///; a store outlives the process")
    return url


def _sqlite(url: sa.URL) -> sa.Engine:
    path = Path(str(url.database).removeprefix("file:"))  # 'file:' with ?uri=true is SQLite's own kind of URL
    if path.is_dir():
        raise NotRunnable(f"store {path}: this is a folder; wanted a file, such as {path / 'gnomon.db'}")
    if not path.parent.is_dir():
        raise NotRunnable(f"store {path}: the folder {path.parent} does not exist; make it, or choose another --store")
    url = url if "timeout" in url.query else url.update_query_dict({"timeout": str(BUSY_S)})
    engine = sa.create_engine(url, poolclass=NullPool)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin in the listener below and nowhere else
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("gnomon_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    with _translated(url):
        _use_wal(engine)
    return engine


def _use_wal(engine: sa.Engine) -> None:
    """Write-ahead logging is a property of the file: set once. Two processes that set it at once collide, and SQLite
    does not wait here as it does elsewhere."""
    deadline = time.monotonic() + BUSY_S
    connection = engine.raw_connection()
    try:
        while connection.cursor().execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
    finally:
        connection.close()


@contextlib.contextmanager
def _translated(url: sa.URL) -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        raise _ours(url, error.orig) from error
    except sqlite3.Error as error:
        raise _ours(url, error) from error


def _ours(url: sa.URL, error: BaseException | None) -> GnomonError:
    code = getattr(error, "sqlite_errorcode", None)
    store, text = f"store {shown(url)}", str(error).strip()
    if isinstance(code, int):
        code &= 0xFF  # the extended codes tell more than a user needs; the text tells the rest
        if code in _DAMAGED:
            advice = "Put back a copy, or start a new store with --store"
            return DamagedData(f"{store}: {_DAMAGED[code]} ({text}). {advice}")
        if code in _HERE:
            outcome = "disk-full" if code == sqlite3.SQLITE_FULL else None
            return NotRunnable(f"{store}: {_HERE[code]} ({text})", outcome=outcome)
        return DamagedData(f"{store}: the database answered {text!r}; `gnomon db check` looks for damage")
    if isinstance(error, sqlite3.Error):
        return DamagedData(f"{store}: a stored value cannot be read ({text}); `gnomon db check` looks for damage")
    if type(error).__name__ == "DiskFull":
        return NotRunnable(f"{store}: the disk of the database server is full ({text})", outcome="disk-full")
    if type(error).__name__ in ("OperationalError", "InsufficientPrivilege", "ReadOnlySqlTransaction"):
        return NotRunnable(f"{store}: the database server refused ({text}). Check that it runs and the URL is right")
    return DamagedData(f"{store}: the database answered {text!r}")
