"""Everything that can end a run is provoked for real, and the store must name it."""

import itertools
import os
import signal
import sqlite3
import subprocess

import pytest
import sqlalchemy as sa

from gnomon.core.errors import OUTCOMES, CheckFailed, DamagedData, GnomonError, UsageError
from gnomon.core.process import call
from gnomon.core.records import from_json, to_json
from gnomon.measure.clock import Clock, resolution_ns
from gnomon.measure.timing import time_call
from gnomon.store.check import check
from gnomon.store.schema import runs
from gnomon.store.store import open_store
from tests.store.build import forecast, python

LIMIT_S = 60.0
GARBAGE = "import os, sys\nos.write(int(sys.argv[2]), {!r})\n"  # into the pipe that only results belong in
FILL = """
import sys
import sqlalchemy as sa
from gnomon.store.store import open_store
from tests.store.build import forecast
store = open_store(sys.argv[1])
@sa.event.listens_for(store.engine, "connect")
def _small(connection, _):
    connection.execute("PRAGMA max_page_count = 60")  # SQLite then answers as on a full disk
with store.begin("run", {}) as run:
    while True:
        run.add(forecast(ops=500))
"""


def outcome_of_run(store, work):
    """Do `work` in a run, as the commands do; the outcome that the store then has of it."""
    with pytest.raises((GnomonError, KeyboardInterrupt, MemoryError)) as ended, store.begin("run", {}) as run:  # noqa: PT012
        run.add(forecast())
        work()
    row = store.run(run.id)
    assert (row.status, row.results) == ("failed", 1)
    assert row.error.startswith(type(ended.value).__name__)
    assert store.load_all(run.id, "forecast") == [forecast()]  # what was stored before is whole
    return row.outcome


def child(target, argument, **limits):
    return lambda: call(target, argument, timeout_s=limits.pop("timeout_s", LIMIT_S), **limits)


@pytest.mark.parametrize(
    ("outcome", "target", "argument", "limits"),
    [
        ("child-died", "signal:raise_signal", int(signal.SIGKILL), {}),
        ("child-died", "signal:raise_signal", int(signal.SIGSEGV), {}),
        ("child-died", "os:_exit", 3, {}),
        ("child-garbage", "builtins:exec", GARBAGE.format(b"Segmentation fault\n"), {}),
        ("child-garbage", "builtins:exec", GARBAGE.format(b"\xff\xfe\n"), {}),
        ("child-garbage", "builtins:exec", GARBAGE.format(b"[1, 2]\n"), {}),
        ("child-garbage", "builtins:exec", GARBAGE.format(b'{"progress": 5}\n'), {}),
        ("child-garbage", "builtins:exec", GARBAGE.format(b'{"error": "E", "classes": ["GnomonError"]}\n'), {}),
        ("child-garbage", "builtins:exec", GARBAGE.format(b"[" * 50_000 + b"\n"), {}),
        ("timed-out", "time:sleep", 600, {"timeout_s": 0.3}),
        ("out-of-memory", "builtins:exec", "a = []\nwhile True: a.append(b'1' * 2**20)", {"memory_bytes": 2**27}),
        ("out-of-memory", "builtins:bytearray", 2**60, {}),
        ("error", "json:loads", "{", {}),
    ],
)
def test_a_child_that_fails_is_named_in_the_store(store, outcome, target, argument, limits):
    assert outcome_of_run(store, child(target, argument, **limits)) == outcome


def test_an_error_of_ours_brings_its_outcome_along_from_the_child(store):
    code = "from gnomon.core.errors import CheckFailed\nraise CheckFailed('back', outcome='clock-backwards')"
    assert outcome_of_run(store, child("builtins:exec", code)) == "clock-backwards"


def test_garbage_is_shown_and_the_child_is_stopped():
    with pytest.raises(CheckFailed, match=r"sent b'Segmentation fault' where its result was expected"):
        call(
            "builtins:exec", GARBAGE.format(b"Segmentation fault\n") + "import time; time.sleep(600)", timeout_s=LIMIT_S
        )


def test_a_message_that_was_cut_by_death_is_a_death():
    with pytest.raises(CheckFailed, match="exit code 4 and no result") as died:
        call("builtins:exec", GARBAGE.format(b'{"result": [1, 2') + "os._exit(4)", timeout_s=LIMIT_S)
    assert died.value.outcome == "child-died"


def test_a_clock_that_goes_backwards_is_named(store):
    clock = Clock(wall_ns=itertools.count(10**9, -5).__next__)
    assert outcome_of_run(store, lambda: time_call(lambda: None, clock)) == "clock-backwards"


def test_a_clock_that_stands_still_is_named(store, monkeypatch):
    monkeypatch.setattr("gnomon.measure.clock._LONGEST_TICK_READS", 1000)
    assert outcome_of_run(store, lambda: resolution_ns(lambda: 7, "wall")) == "zero-length"


def test_a_record_of_a_later_version_is_named(store):
    document = {**to_json(forecast()), "schema": "gnomon/forecast/999"}
    assert outcome_of_run(store, lambda: from_json(document)) == "unknown-version"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(KeyboardInterrupt(), "interrupted"), (MemoryError(), "out-of-memory"), (UsageError("no"), "bad-input"),
     (DamagedData("no"), "damaged-data")],
)  # fmt: skip
def test_what_ends_a_run_names_it(store, error, outcome):
    def work():
        raise error

    assert outcome_of_run(store, work) == outcome


def test_a_killed_writer_is_named(store):
    code = "import sys; from gnomon.store.store import open_store; from tests.store.build import forecast\n"
    code += "run = open_store(sys.argv[1]).begin('run', {}); run.add(forecast()); print(run.id, flush=True)\n"
    with subprocess.Popen(
        python(code + "sys.stdin.read()", store.place), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        name = writer.stdout.readline().strip()
        assert store.run(name).outcome is None
        writer.kill()
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
        row = store.run(name)
    assert (row.status, row.outcome, row.results) == ("broken", "killed", 1)


def test_a_full_disk_is_named_and_everything_before_stays_readable(store):
    first = store.begin("run", {}).add(forecast())
    done = subprocess.run(python(FILL, store.place), capture_output=True, text=True, check=False)
    assert "the disk is full. Free some space" in done.stderr
    row = store.run("last")
    assert (row.status, row.outcome) == ("failed", "disk-full")
    assert row.results > 0
    assert store.load(first) == forecast()
    assert store.load_all(row.id, "forecast") == [forecast(ops=500)] * row.results
    assert check(store).problems == ()


def refuse_updates(connection, cursor, statement, *_):
    if statement.startswith("UPDATE runs"):
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise full


def test_a_disk_with_no_room_for_the_end_of_a_run_has_room_for_its_name(store):
    sa.event.listen(store.engine, "before_cursor_execute", refuse_updates)
    with pytest.raises(GnomonError) as full, store.begin("run", {}) as run:
        run.end("done")  # any write
    assert full.value.outcome == "disk-full"
    assert store.run(run.id).status == "running"  # a list still works while nothing can be written
    (word,) = [path for path in os.listdir(os.path.dirname(store.place)) if path.endswith(".disk-full")]
    again = open_store(store.place)  # there is room again
    row = again.run(run.id)
    assert (row.status, row.outcome, row.error) == ("failed", "disk-full", OUTCOMES["disk-full"])
    assert not os.path.exists(os.path.join(os.path.dirname(store.place), word))


def test_a_last_word_about_no_run_or_of_no_outcome_changes_nothing(store):
    with store.begin("run", {}) as run:
        pass
    store.leave_last_word(run.id, "disk-full")
    store.leave_last_word(run.id, "no-such-outcome")
    store.leave_last_word("20260101-000000-abcdef", "timed-out")
    assert [(row.status, row.outcome) for row in store.runs()] == [("done", "done")]


def test_an_ended_run_has_an_outcome_and_only_one_of_the_list(store):
    run = store.begin("run", {})
    with pytest.raises(ValueError, match=r"no outcome is called 'timedout'\. Did you mean 'timed-out'\?"):
        run.end("failed", "slow", "timedout")
    run.end("failed", "slow", "timed-out")
    assert [row.id for row in store.runs(outcome="timed-out")] == [run.id]
    with pytest.raises(UsageError, match=r"no outcome is called 'died'.*Known: done, interrupted"):
        store.runs(outcome="died")
    with store.engine.connect() as connection:
        assert connection.execute(sa.select(runs.c.outcome)).scalars().all() == ["timed-out"]
