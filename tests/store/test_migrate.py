import shutil
import sqlite3
import subprocess

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from gnomon.core.errors import DamagedData
from gnomon.store import migrate
from gnomon.store.connect import engine_for, reading
from gnomon.store.schema import metadata
from gnomon.store.store import Store, open_store
from tests.store.build import forecast, python

LATER = """
import sqlalchemy as sa
from alembic import op
revision = "9999"
down_revision = "{newest}"
def upgrade():
    op.add_column("results", sa.Column("note", sa.Text))
    op.execute("UPDATE results SET note = 'old'")
    {more}
def downgrade():
    op.drop_column("results", "note")
"""
OPEN = "import sys; from gnomon.store.store import open_store; print('ready', flush=True); sys.stdin.read(); \
open_store(sys.argv[1]).begin('run', {})"


@pytest.fixture
def later(tmp_path):
    """The migrations of a later Gnomon, which has one more."""

    def make(more=""):
        folder = tmp_path / "later"
        shutil.copytree(migrate.SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        text = LATER.format(newest=migrate.newest(), more=more)
        (folder / "versions" / "v9999_later.py").write_text(text)
        return folder

    return make


def test_the_migrations_lead_to_the_tables_that_the_code_uses(store):
    with reading(store.engine) as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "gnomon_store_version"})
        assert compare_metadata(context, metadata) == []


def test_the_migrations_are_one_straight_line_that_ends_where_the_file_names_say():
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert scripts.get_heads() == [migrate.newest()]
    assert sorted(revisions, reverse=True) == revisions
    names = {path.name[1:5] for path in (migrate.SCRIPTS / "versions").glob("v*.py")}
    assert set(revisions) == names


def test_down_and_up_again_leaves_an_empty_store(store):
    store.begin("run", {}).add(forecast())
    migrate.downgrade(store.engine, "base")
    assert migrate.version(store.engine) is None
    with reading(store.engine) as connection:
        assert set(sa.inspect(connection).get_table_names()) == {"gnomon_store_version"}
    migrate.upgrade(store.engine)
    assert migrate.version(store.engine) == migrate.newest()
    assert store.runs() == []


def test_an_older_store_is_migrated_with_all_that_it_holds(store, later):
    number = store.begin("run", {}).add(forecast())
    scripts = later()
    migrate.upgrade(store.engine, scripts)
    assert migrate.version(store.engine) == "9999"
    assert store.load(number) == forecast()
    with reading(store.engine) as connection:
        assert connection.exec_driver_sql("SELECT note FROM results").scalars().all() == ["old"]
    migrate.downgrade(store.engine, migrate.newest(), scripts)
    assert open_store(store.place).load(number) == forecast()


def test_a_store_of_a_newer_gnomon_is_refused_with_what_to_do(store, later):
    migrate.upgrade(store.engine, later())
    wanted = rf"newer Gnomon wrote it \(store version 9999, .* up to {migrate.newest()}\)\. Upgrade"
    with pytest.raises(DamagedData, match=wanted) as refused:
        open_store(store.place)
    assert refused.value.outcome == "unknown-version"


FIRST_RUN = """
INSERT INTO runs (
    id, started_at, status, command, arguments, task, task_digest, gnomon_version,
    host, boot, pid, process_started, error
) VALUES (?, '2026-01-01T00:00:00.000000Z', ?, 'run', '{}', '', '', '0', 'h', 'b', 1, '', ?)
"""


def test_runs_of_the_first_version_get_their_outcomes_and_lose_only_these_on_the_way_back(store):
    number = store.begin("run", {}).add(forecast())
    migrate.downgrade(store.engine, "0001")
    told = {
        "a": ("done", None, "done"),
        "b": ("broken", "the process ended without a word", "killed"),
        "c": ("failed", "CheckFailed: the wall clock went backwards", "check-failed"),
        "d": ("failed", "KeyboardInterrupt", "interrupted"),
        "e": ("failed", "UnknownName: no task", "bad-input"),
        "f": ("failed", "NotRunnableHere: of a plug-in", "error"),
        "g": ("failed", "ZeroDivisionError: division by zero", "error"),
        "h": ("running", None, None),
    }
    with store.engine.connect() as connection:
        assert "outcome" not in {column["name"] for column in sa.inspect(connection).get_columns("runs")}
        for name, (status, error, _) in told.items():
            connection.exec_driver_sql(FIRST_RUN, (name, status, error))
        connection.commit()
    again = open_store(store.place)
    runs = {run.id: run for run in again.runs()}
    assert {name: (runs[name].status, runs[name].error, runs[name].outcome) for name in told} == told
    assert again.load(number) == forecast()
    migrate.downgrade(store.engine, "0001")
    with store.engine.connect() as connection:
        errors = dict(connection.exec_driver_sql("SELECT id, error FROM runs").all())
    assert {name: errors[name] for name in told} == {name: error for name, (_, error, _) in told.items()}


def test_a_migration_that_fails_leaves_the_store_as_it_was(store, later):
    number = store.begin("run", {}).add(forecast())
    with pytest.raises(ZeroDivisionError):
        migrate.upgrade(store.engine, later(more="1 / 0"))
    assert migrate.version(store.engine) == migrate.newest()
    with reading(store.engine) as connection:
        assert "note" not in {column["name"] for column in sa.inspect(connection).get_columns("results")}
    assert open_store(store.place).load(number) == forecast()


def test_tables_without_a_version_are_no_store(store):
    with store.engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE gnomon_store_version")
        connection.commit()
    with pytest.raises(DamagedData, match=r"no store of Gnomon; it holds the table\(s\) results, runs"):
        open_store(store.place)


def test_processes_that_open_a_new_store_at_once_make_it_once(tmp_path):
    path = tmp_path / "new.db"
    openers = [
        subprocess.Popen(python(OPEN, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for opener in openers:
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        opener.stdin.close()
    assert [opener.wait() for opener in openers] == [0] * 4
    for opener in openers:
        opener.stdout.close()
    assert len(Store(engine_for(str(path))).runs()) == 4


def test_an_empty_file_is_a_new_store(tmp_path):
    path = tmp_path / "new.db"
    path.touch()  # what a writer leaves that is killed in its first moment
    assert open_store(str(path)).runs() == []


def test_a_store_of_this_version_opens_without_alembic(store):
    code = f"{OPEN}; print('alembic' in sys.modules)"
    done = subprocess.run(python(code, store.place), input="", capture_output=True, text=True, check=True)
    assert done.stdout == "ready\nFalse\n"


def test_a_half_made_file_with_a_journal_is_recovered(tmp_path):
    path = tmp_path / "half.db"
    with sqlite3.connect(path, isolation_level=None) as half:
        half.execute("PRAGMA journal_mode = WAL")
        half.execute("BEGIN IMMEDIATE")
        half.execute("CREATE TABLE runs (id TEXT)")
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"copy.db{suffix}")  # as a kill leaves them
    half.close()
    assert open_store(str(tmp_path / "copy.db")).runs() == []
