import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnomon.core.digest import digest
from gnomon.core.errors import DamagedData, UnknownName, UsageError
from gnomon.core.records import record, to_json
from gnomon.store.schema import results, runs
from gnomon.store.store import open_store
from tests.store.build import forecast, measurement, python

WRITE_FOREVER = """
import sys
from gnomon.store.store import open_store
from tests.store.build import forecast
run = open_store(sys.argv[1]).begin("examine", {})
run.add(forecast())
print(run.id, flush=True)
sys.stdin.read()
"""
WRITE_MANY = """
import sys
from gnomon.store.store import open_store
from tests.store.build import forecast
print("ready", flush=True)
sys.stdin.read()
with open_store(sys.argv[1]).begin("examine", {"writer": sys.argv[2]}, task=sys.argv[2]) as run:
    for i in range(15):
        run.add(forecast(device=f"{sys.argv[2]}-{i}"))
"""


@record("note", 1)
@dataclass(frozen=True)
class Note:
    text: str
    number: float


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    text=st.text(st.characters(codec="ascii"), max_size=50),
    number=st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300),
)
def test_what_was_added_comes_back_equal(store, text, number):
    note = Note(text, number)
    assert store.load(store.begin("test", {}).add(note)) == note


def test_a_result_has_the_digest_of_its_record_and_the_columns_of_its_kind(store):
    run = store.begin("examine", {})
    assert [run.add(measurement()), run.add(forecast())] == [row.id for row in store.results()]
    measured, forecasted = store.results()
    assert measured.digest == digest(to_json(measurement()))
    assert (measured.task, measured.variant, measured.device, measured.latency_s) == ("embed", "eager", "cpu", 0.5)
    assert (forecasted.kind, forecasted.schema, forecasted.position) == ("forecast", "gnomon/forecast/1", 1)
    assert (forecasted.device, forecasted.latency_s, forecasted.verdict) == ("H100-SXM", 0.25, None)


def test_results_are_found_by_run_kind_and_task(store):
    first, second = store.begin("examine", {}), store.begin("examine", {})
    first.add(measurement())
    first.add(forecast("A100"))
    first.add(forecast("V100"))
    second.add(forecast("T4", task="other"))
    assert [row.device for row in store.results(run_id=first.id, kind="forecast")] == ["A100", "V100"]
    assert [row.device for row in store.results(task="other")] == ["T4"]
    assert store.load_all(first.id, "forecast") == [forecast("A100"), forecast("V100")]
    assert store.load_all(second.id, "measurement") == []


def test_only_records_are_kept(store):
    run = store.begin("test", {})
    with pytest.raises(TypeError, match="keeps records"):
        run.add({"latency": 1})
    with pytest.raises(ValueError, match="cannot hold inf"):
        run.add(Note("", float("inf")))
    assert store.results() == []


def test_a_run_ends_as_done_or_failed_and_keeps_its_results(store):
    with store.begin("run", {"out": Path("a/b"), "n": 1}, task="embed", task_digest="sha256:9") as good:
        good.add(forecast())
    with pytest.raises(ZeroDivisionError), store.begin("run", {}) as bad:  # noqa: PT012
        bad.add(forecast())
        _ = 1 / 0
    done, failed = store.run(good.id), store.run(bad.id)
    assert (done.status, done.error, done.arguments, done.results) == ("done", None, {"out": "a/b", "n": 1}, 1)
    assert (done.task, done.task_digest) == ("embed", "sha256:9")
    assert done.started_at <= str(done.ended_at)
    assert (failed.status, failed.error, failed.results) == ("failed", "ZeroDivisionError: division by zero", 1)


def test_text_that_no_database_holds_does_not_hide_the_error_of_a_run(store):
    with pytest.raises(OSError, match="caf"), store.begin("run", {"file": "caf\udce9"}) as run:
        raise OSError("cannot read caf\udce9\0")
    assert store.run(run.id).error == "OSError: cannot read caf\\udce9\\x00"
    assert store.run(run.id).arguments == {"file": "caf\\udce9"}


def test_runs_come_newest_first_and_by_task_and_status(store):
    for i in range(5):
        store.begin("run", {"i": i}, task="even" if i % 2 == 0 else "odd").end("done" if i < 3 else "failed")
    assert [run.arguments["i"] for run in store.runs()] == [4, 3, 2, 1, 0]
    assert [run.arguments["i"] for run in store.runs(limit=2, task="even")] == [4, 2]
    assert [run.arguments["i"] for run in store.runs(status="failed")] == [4, 3]
    with pytest.raises(UsageError, match=r"status 'doen'.*Did you mean 'done'"):
        store.runs(status="doen")


def test_a_run_is_found_by_any_part_that_is_enough(store):
    first, second = store.begin("run", {}).id, store.begin("run", {}).id
    assert store.run(first).id == first
    assert store.run(second[-6:]).id == second
    assert store.run("last").id == second
    for everything in (first[:4], ""):
        with pytest.raises(UnknownName, match=r"could be any of|no run is called ''"):
            store.run(everything)
    with pytest.raises(UnknownName, match="no run is called '%'"):
        store.run("%")


def test_an_empty_store_has_no_last_run(store):
    with pytest.raises(UnknownName, match="has no runs yet"):
        store.run("last")


def test_run_ids_sort_by_their_second_and_do_not_repeat(store):
    ids = [store.begin("run", {}).id for _ in range(50)]
    assert len(set(ids)) == 50
    assert [i[:15] for i in ids] == sorted(i[:15] for i in ids)


def test_a_killed_writer_leaves_a_broken_run_and_its_results(store):
    writer = subprocess.Popen(
        python(WRITE_FOREVER, store.place), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with writer:
        run_id = writer.stdout.readline().strip()
        assert store.run(run_id).status == "running"  # a living writer is left alone
        writer.kill()
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)  # dead, but not buried
        assert store.run(run_id).status == "broken"
    assert writer.returncode == -signal.SIGKILL
    assert store.load_all(run_id, "forecast") == [forecast()]
    assert [run.id for run in store.runs(status="broken")] == [run_id]


def test_several_processes_that_write_at_once_lose_nothing(tmp_path):
    path = tmp_path / "shared.db"  # made by whoever is first
    writers = [
        subprocess.Popen(python(WRITE_MANY, path, name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "abcd"
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.close()
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    for writer in writers:
        writer.stdout.close()
    store = open_store(str(path))
    for name in "abcd":
        (run,) = store.runs(task=name)
        assert run.status == "done"
        assert [row.position for row in store.results(run_id=run.id)] == list(range(15))
        assert store.load_all(run.id, "forecast") == [forecast(device=f"{name}-{i}") for i in range(15)]


@pytest.mark.parametrize("damage", [b"", b"no zlib", None], ids=["emptied", "overwritten", "of another result"])
def test_a_damaged_result_is_told_and_never_returned(store, damage):
    run = store.begin("run", {})
    number, other = run.add(forecast()), run.add(forecast("T4"))
    with store.engine.connect() as connection:
        query = sa.select(results.c.payload).where(results.c.id == other)
        payload = damage if damage is not None else connection.execute(query).scalar_one()
        connection.execute(results.update().where(results.c.id == number).values(payload=payload))
        connection.commit()
    with pytest.raises(DamagedData, match=f"result {number} of .* is damaged"):
        store.load(number)
    assert store.load(other) == forecast("T4")


def test_a_run_whose_arguments_are_damaged_is_told(store):
    run = store.begin("run", {})
    with store.engine.connect() as connection:
        connection.execute(runs.update().values(arguments="{"))
        connection.commit()
    with pytest.raises(DamagedData, match=f"run {run.id}: its arguments are damaged"):
        store.runs()


def test_there_is_no_result_with_another_number(store):
    for ask in (store.load, store.document, store.result):
        with pytest.raises(UnknownName, match="no result has the number 7"):
            ask(7)


def test_the_store_is_where_the_environment_says_else_at_home(tmp_path, monkeypatch):
    monkeypatch.delenv("GNOMON_STORE", raising=False)
    assert open_store().place == str(tmp_path / "gnomon-home" / "gnomon.db")
    monkeypatch.setenv("GNOMON_STORE", str(tmp_path / "elsewhere.db"))
    assert open_store().place == str(tmp_path / "elsewhere.db")
    assert open_store(f"sqlite:///{tmp_path}/third.db").place == str(tmp_path / "third.db")
