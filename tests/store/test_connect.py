import importlib.util
import os
import sqlite3
import subprocess

import pytest
import sqlalchemy as sa

from gnomon.core.errors import DamagedData, NotRunnable, UsageError
from gnomon.store.check import check
from gnomon.store.connect import engine_for, reading, shown
from gnomon.store.store import open_store
from tests.store.build import forecast, python

ADD_MANY_WITH_SMALL_FILES = """
import resource, sys
from gnomon.store.store import open_store
from gnomon.core.errors import NotRunnable
from tests.store.build import forecast
store = open_store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
with store.begin("run", {}) as run:
    while True:
        run.add(forecast(ops=2000))
"""


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("mysql://host/db", "wanted a path, sqlite:///PATH or postgresql://...; got mysql"),
        ("postgressql://host/db", "Did you mean 'postgresql'"),
        ("sqlite://", "wanted a file behind sqlite:///"),
        (":memory:", "a store outlives the process"),
        ("postgresql://host:port/db", "URL cannot be read"),
    ],
)
def test_a_location_that_is_none_is_told(location, message):
    with pytest.raises(UsageError, match=message):
        engine_for(location)


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(NotRunnable, match=r"this is a folder; wanted a file, such as .*gnomon\.db"):
        open_store(str(tmp_path))


def test_a_missing_folder_is_not_made(tmp_path):
    with pytest.raises(NotRunnable, match="does not exist; make it"):
        open_store(str(tmp_path / "typo" / "gnomon.db"))
    assert not (tmp_path / "typo").exists()


def test_a_store_that_must_exist_is_not_made(tmp_path):
    with pytest.raises(NotRunnable, match="there is no store at"):
        open_store(str(tmp_path / "typo.db"), must_exist=True)
    assert list(tmp_path.glob("*.db")) == []


def test_a_name_with_signs_of_urls_is_a_file_of_that_name(tmp_path):
    name = "50% of #1? naïve.db"
    open_store(str(tmp_path / name)).begin("run", {}).end("done")
    assert [path.name for path in tmp_path.glob("*.db")] == [name]


def test_a_text_file_is_no_store_and_stays_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not a database\n" * 200)
    with pytest.raises(DamagedData, match="no SQLite database"):
        open_store(str(path))
    assert path.read_text().startswith("these are notes")


def test_the_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "places.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    with pytest.raises(DamagedData, match=r"no store of Gnomon; it holds the table\(s\) bookmarks"):
        open_store(str(path))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    connection.close()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_a_truncated_store_is_told_on_opening_or_by_the_check(tmp_path, share):
    path = tmp_path / "cut.db"
    with open_store(str(path)).begin("run", {}) as run:
        for _ in range(10):
            run.add(forecast(ops=200))
    os.truncate(path, int(path.stat().st_size * share))
    try:
        found = check(open_store(str(path)))
    except DamagedData as error:
        assert "damaged" in str(error) or "no SQLite database" in str(error)  # noqa: PT017
    else:
        assert found.problems


@pytest.mark.parametrize("seed", range(8))
def test_overwritten_bytes_never_cause_more_than_damaged_data(tmp_path, seed):
    path = tmp_path / "scribbled.db"
    with open_store(str(path)).begin("run", {}) as run:
        numbers = [run.add(forecast(ops=150)) for _ in range(10)]
    data = bytearray(path.read_bytes())
    start = 100 + seed * (len(data) - 400) // 8
    data[start : start + 300] = bytes((b + 1) % 256 for b in data[start : start + 300])
    path.write_bytes(data)
    try:
        store = open_store(str(path))
        problems = check(store).problems
        bad = 0
        for number in numbers:
            try:
                bad += store.load(number) != forecast(ops=150)
            except DamagedData:
                bad += 1
    except DamagedData:
        return
    assert problems or bad == 0  # whatever a reader would notice, the check has noticed


def test_a_store_opened_for_reading_only_cannot_be_written(tmp_path):
    path = tmp_path / "old.db"
    open_store(str(path)).begin("run", {}).end("done")
    store = open_store(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert len(store.runs()) == 1
    with pytest.raises(NotRunnable, match="cannot be written"):
        store.begin("run", {})


@pytest.fixture
def as_nobody(tmp_path):
    """Root may write everything, so the test becomes another user for a while."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.parent != folder and folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o755)
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX files")
def test_a_store_without_the_right_to_write_is_told(tmp_path, locked_store, as_nobody):
    with pytest.raises(NotRunnable, match=r"cannot be (written|opened)\..* --store"):
        open_store(locked_store).begin("run", {})


@pytest.fixture
def locked_store(tmp_path):
    path = tmp_path / "theirs" / "store.db"
    path.parent.mkdir()
    open_store(str(path)).begin("run", {}).end("done")
    path.chmod(0o444)
    path.parent.chmod(0o555)
    yield str(path)
    path.parent.chmod(0o755)


def add_forever(run):
    while True:
        run.add(forecast(ops=500))


def test_a_full_disk_is_told_and_keeps_what_was_there(store):
    with store.begin("run", {}) as run:
        first = run.add(forecast())

    @sa.event.listens_for(store.engine, "connect")
    def _small(connection, _):
        connection.execute("PRAGMA max_page_count = 30")  # SQLite then answers as on a full disk

    run = store.begin("run", {})
    with pytest.raises(NotRunnable, match="the disk is full"):
        add_forever(run)
    again = open_store(store.place)
    assert again.load(first) == forecast()
    assert check(again).problems == ()


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX processes")
def test_a_file_system_that_refuses_to_write_is_told_and_keeps_what_was_there(store):
    first = store.begin("run", {}).add(forecast())
    done = subprocess.run(python(ADD_MANY_WITH_SMALL_FILES, store.place), capture_output=True, text=True, check=False)
    assert "gnomon.core.errors.NotRunnable" in done.stderr
    assert "refused to read or write" in done.stderr
    assert store.load(first) == forecast()
    assert check(store).problems == ()


def test_a_store_that_another_holds_for_too_long_is_told(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/store.db?timeout=0")
    with sqlite3.connect(tmp_path / "store.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotRunnable, match="another process has held it"):
            store.begin("run", {})
        assert store.runs() == []  # readers do not wait
        other.execute("ROLLBACK")
    other.close()
    store.begin("run", {})


def test_sqlite_waits_for_the_disk_and_keeps_foreign_keys(store):
    with reading(store.engine) as connection:
        asked = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                 ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}  # fmt: skip
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 60_000}


def test_the_password_of_a_url_is_never_shown():
    if importlib.util.find_spec("psycopg") is None:
        with pytest.raises(NotRunnable, match=r"pip install 'gnomon\[postgres\]'") as caught:
            open_store("postgresql://me:secret@localhost:1/db")
    else:
        with pytest.raises(NotRunnable, match="the database server refused") as caught:
            open_store("postgresql://me:secret@localhost:1/db")
    assert "secret" not in str(caught.value)
    assert shown(sa.make_url("postgresql://me:secret@host/db")) == "postgresql://me:***@host/db"
