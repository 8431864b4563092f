"""Bring a store to the version that this Gnomon writes, in one transaction: all of it, or nothing."""

from pathlib import Path

import sqlalchemy as sa

from gnomon.core.errors import DamagedData
from gnomon.store.connect import reading, shown, writing
from gnomon.store.schema import metadata

SCRIPTS = Path(__file__).parent / "migrations"
_VERSION_TABLE = "gnomon_store_version"
_LOCK = 0x676E6F6D6F6E  # 'gnomon': PostgreSQL's advisory lock against two migrations at once


def newest(scripts: Path = SCRIPTS) -> str:
    """The version that the migrations lead to, read off their file names: opening a store need not import Alembic."""
    return max(path.name[1:5] for path in (scripts / "versions").glob("v[0-9]*.py"))


def version(engine: sa.Engine) -> str | None:
    """The version of the store behind `engine`; None when there is nothing in it yet."""
    with reading(engine) as connection:
        return _version(connection)


def upgrade(engine: sa.Engine, scripts: Path = SCRIPTS) -> None:
    """Create the tables of a new store, or migrate an older one.

    Raises DamagedData when a newer Gnomon wrote it, or when it is a database of something else.
    """
    wanted = newest(scripts)
    if version(engine) == wanted:
        return
    with writing(engine) as connection:
        _lock(connection)
        found = _version(connection)  # again: another process may have been first
        if found is None:
            _refuse_foreign(connection)
        elif found > wanted:
            raise DamagedData(
                f"store {shown(engine.url)}: a newer Gnomon wrote it (store version {found}, this one knows up to"
                f" {wanted}). Upgrade gnomon, or choose another store with --store",
                outcome="unknown-version",
            )
        if found != wanted:
            _run(connection, scripts, "upgrade", "head")


def downgrade(engine: sa.Engine, wanted: str, scripts: Path = SCRIPTS) -> None:
    """Take a store back to version `wanted` ('base': nothing left). For developers; no command offers it."""
    with writing(engine) as connection:
        _lock(connection)
        _run(connection, scripts, "downgrade", wanted)


def _run(connection: sa.Connection, scripts: Path, direction: str, wanted: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "version_table": _VERSION_TABLE})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    getattr(command, direction)(config, wanted)


def _lock(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":  # SQLite's BEGIN IMMEDIATE is one already
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION_TABLE):
        return None
    return connection.execute(sa.select(sa.column("version_num")).select_from(sa.table(_VERSION_TABLE))).scalar()


def _refuse_foreign(connection: sa.Connection) -> None:
    tables = set(sa.inspect(connection).get_table_names()) - {_VERSION_TABLE}
    if connection.dialect.name != "sqlite":
        tables &= set(metadata.tables)  # a server's database may well be shared; a file is not
    if tables:
        raise DamagedData(
            f"store {shown(connection.engine.url)}: this database is no store of Gnomon; it holds the table(s)"
            f" {', '.join(sorted(tables)[:5])}. Choose another place with --store"
        )
