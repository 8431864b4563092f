"""Is everything in the store what was written? The database's own check, every payload, and runs that broke off."""

from dataclasses import dataclass

import sqlalchemy as sa

from gnomon.core.errors import DamagedData
from gnomon.store import kinds
from gnomon.store.connect import reading
from gnomon.store.schema import results, runs
from gnomon.store.store import Store, iterate_payloads, unpack


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and found. broken: runs whose process died, which is no damage. problems: what is."""

    runs: int
    results: int
    broken: tuple[str, ...]
    problems: tuple[str, ...]


def check(store: Store) -> Check:
    """Read all of the store. Never raises DamagedData: what is damaged is in `problems`."""
    problems: list[str] = []
    seen, known, broken = 0, 0, []
    try:
        store.mark_broken()
        with reading(store.engine) as connection:
            if connection.dialect.name == "sqlite":
                problems += _sqlite_problems(connection)
            known = connection.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one()
            broken = list(connection.execute(sa.select(runs.c.id).where(runs.c.status == "broken")).scalars())
            problems += _gaps(connection)
            for row in iterate_payloads(connection):
                seen += 1
                problems += _row_problems(row, f"result {row.id} (run {row.run_id}, position {row.position})")
    except DamagedData as error:
        problems.append(f"stopped after {seen} results: {error}")
    return Check(known, seen, tuple(sorted(broken)), tuple(problems))


def _sqlite_problems(connection: sa.Connection) -> list[str]:
    found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(20)")]
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return [f"SQLite: {text}" for text in found if text != "ok"] + [f"row {r[1]} of {r[0]} has no run" for r in orphans]


def _gaps(connection: sa.Connection) -> list[str]:
    """Positions are given without gaps, so a gap is a result that somebody removed."""
    count, last = sa.func.count(), sa.func.max(results.c.position)
    query = sa.select(results.c.run_id, count, last).group_by(results.c.run_id).having(count != last + 1)
    return [f"run {run_id} has lost {last + 1 - n} result(s)" for run_id, n, last in connection.execute(query)]


def _row_problems(row: sa.Row[tuple[object, ...]], what: str) -> list[str]:
    try:
        document = unpack(row.payload, row.digest, what)
    except DamagedData as error:
        return [str(error)]
    wanted = {"schema": document.get("schema"), "kind": kinds.kind_of(document), **kinds.hot(document)}
    wrong = [name for name, value in wanted.items() if getattr(row, name) not in (value, None)]  # older: fewer columns
    return [f"{what}: column {', '.join(wrong)} is not what the record says"] if wrong else []
