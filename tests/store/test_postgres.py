"""The same store in PostgreSQL, on a server of our own that lives as long as these tests."""

import importlib.util
import io
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from gnomon.core.errors import DamagedData, NotRunnable
from gnomon.store import migrate
from gnomon.store.check import check
from gnomon.store.export import export, import_jsonl
from gnomon.store.store import open_store
from tests.store.build import forecast, measurement

pytestmark = pytest.mark.slow
needs_psycopg = pytest.mark.skipif(
    importlib.util.find_spec("psycopg") is None, reason="needs psycopg: pip install 'gnomon[postgres]'"
)


@pytest.fixture(scope="module")
def server():
    """The folder of a server's socket and its owner; PostgreSQL refuses to run as root."""
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if found is None:
        pytest.skip("needs the PostgreSQL server (initdb, pg_ctl)")
    owner, become = pwd.getpwuid(os.geteuid()).pw_name, []
    if os.geteuid() == 0:
        if not any(user.pw_name == "postgres" for user in pwd.getpwall()) or shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        owner, become = "postgres", ["runuser", "-u", "postgres", "--"]
    programs, folder = Path(found).parent, Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path must be short
    shutil.chown(folder, owner)
    data = str(folder / "data")

    def call(program, *arguments):
        with (folder / "log").open("a") as log:
            subprocess.run([*become, str(programs / program), *arguments], check=True, stdout=log, stderr=log, cwd="/")

    try:
        call("initdb", "-D", data, "-A", "trust", "--no-sync", "-E", "UTF8")
        call("pg_ctl", "-D", data, "-w", "-o", f"-k {folder} -c listen_addresses='' -c fsync=off", "start")
        yield folder, owner
        call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def psql(server):
    """Run SQL in a new database; returns what psql printed."""
    folder, owner = server

    def call(sql, database):
        command = ["psql", "-h", str(folder), "-U", owner, "-v", "ON_ERROR_STOP=1", "-qAt", "-d", database]
        return subprocess.run(command, input=sql, capture_output=True, text=True, check=True).stdout

    return call


@pytest.fixture
def url(server, psql):
    folder, owner = server
    psql("DROP DATABASE IF EXISTS gnomon", "postgres")
    psql("CREATE DATABASE gnomon", "postgres")
    return f"postgresql://{owner}@/gnomon?host={folder}"


def sql_of(direction):
    """The SQL of all migrations for PostgreSQL."""
    text = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": text})
    scripts = list(ScriptDirectory(str(migrate.SCRIPTS)).walk_revisions())
    with Operations.context(context):
        for script in scripts if direction == "downgrade" else reversed(scripts):
            getattr(script.module, direction)()
    return text.getvalue()


def test_a_server_takes_the_migrations_up_and_down(psql, url):
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
    psql(sql_of("upgrade"), "gnomon")
    assert psql(tables, "gnomon").split() == ["results", "runs"]
    row = "INSERT INTO runs VALUES ('r', 't', NULL, '{}', 'c', '[]', '', '', '1', 'h', 'b', 1, '', NULL)"
    with pytest.raises(subprocess.CalledProcessError) as refused:
        psql(row.format("finished"), "gnomon")
    assert "runs_status" in refused.value.stderr
    psql(row.format("done"), "gnomon")
    psql(sql_of("downgrade"), "gnomon")
    assert psql(tables, "gnomon") == ""


@needs_psycopg
def test_runs_and_results_are_kept_checked_and_moved_as_in_sqlite(url, tmp_path):
    store = open_store(url)
    with store.begin("examine", {"batch": 8}, task="embed") as run:
        numbers = [run.add(measurement()), run.add(forecast())]
    assert [store.load(number) for number in numbers] == [measurement(), forecast()]
    assert (store.run(run.id[-6:]).status, store.run("last").results) == ("done", 2)
    assert check(store).problems == ()
    export(store, tmp_path / "all.jsonl", "jsonl")
    local = open_store(str(tmp_path / "local.db"))
    import_jsonl(local, tmp_path / "all.jsonl")
    assert local.runs() == store.runs()
    assert [row.digest for row in local.results()] == [row.digest for row in store.results()]
    assert open_store(url).runs() == store.runs()


@needs_psycopg
def test_threads_that_open_and_write_at_once_lose_nothing(url):
    def write(name):
        with open_store(url).begin("examine", {}, task=name) as run:
            for i in range(20):
                run.add(forecast(f"{name}-{i}"))

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = open_store(url)
    assert sorted((run.task, run.status, run.results) for run in store.runs()) == [(n, "done", 20) for n in "abcd"]
    assert check(store).problems == ()


@needs_psycopg
def test_two_writers_of_one_run_get_positions_of_their_own(url):
    store = open_store(url)
    run = store.begin("examine", {})
    writers = [threading.Thread(target=lambda: [run.add(forecast()) for _ in range(20)]) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [row.position for row in store.results(run_id=run.id)] == list(range(60))


@needs_psycopg
def test_a_database_with_tables_of_the_same_name_is_left_alone(url, psql):
    psql("CREATE TABLE runs (distance_km int); CREATE TABLE shoes (size int)", "gnomon")
    with pytest.raises(DamagedData, match=r"no store of Gnomon; it holds the table\(s\) runs\. Choose"):
        open_store(url)


@needs_psycopg
def test_a_migration_that_fails_leaves_the_database_as_it_was(url, tmp_path):
    store = open_store(url)
    number = store.begin("run", {}).add(forecast())
    shutil.copytree(migrate.SCRIPTS, tmp_path / "later", ignore=shutil.ignore_patterns("__pycache__"))
    text = f"from alembic import op\nrevision = '9999'\ndown_revision = '{migrate.newest()}'\n"
    text += "def upgrade():\n    op.drop_column('results', 'verdict')\n    1 / 0\n"
    (tmp_path / "later" / "versions" / "v9999_later.py").write_text(text)
    with pytest.raises(ZeroDivisionError):
        migrate.upgrade(store.engine, tmp_path / "later")
    assert migrate.version(store.engine) == migrate.newest()
    assert open_store(url).load(number) == forecast()


@needs_psycopg
def test_a_server_that_does_not_answer_is_told(tmp_path):
    with pytest.raises(NotRunnable, match="the database server refused"):
        open_store(f"postgresql:///gnomon?host={tmp_path}")
