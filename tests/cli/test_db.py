import json
import sqlite3
import subprocess
import sys

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.store.store import open_store
from tests.store.build import forecast, measurement


@pytest.fixture
def filled(tmp_path):
    store = open_store(str(tmp_path / "store.db"))
    with store.begin("examine", {"batch": 8}, task="embed") as run:
        run.add(measurement())
        run.add(forecast(ops=50))
    with pytest.raises(RuntimeError), store.begin("run", {}, task="other"):
        raise RuntimeError("no luck")
    return store


@pytest.fixture
def db(filled):
    """Call `gnomon db ...` on the filled store."""

    def call(*arguments, store=filled.place):
        return CliRunner().invoke(main, ["db", *arguments, "--store", store])

    return call


def test_list_shows_the_runs_newest_first(db):
    done = db("list")
    assert done.exit_code == 0
    words = [line.split() for line in done.stdout.splitlines()]
    assert words[0] == ["run", "took", "outcome", "command", "task", "results"]
    assert [line[3:] for line in words[1:]] == [["error", "run", "other", "0"], ["done", "examine", "embed", "2"]]
    assert len(db("list", "--limit", "1").stdout.splitlines()) == 2
    assert [run["task"] for run in json.loads(db("list", "--status", "done", "--json").stdout)["runs"]] == ["embed"]
    assert json.loads(db("list", "--task", "nothing", "--json").stdout)["runs"] == []
    (failed,) = json.loads(db("list", "--outcome", "error", "--json").stdout)["runs"]
    assert (failed["task"], failed["status"], failed["outcome"]) == ("other", "failed", "error")
    assert "no such runs" in db("list", "--task", "nothing").stderr


def test_a_long_name_is_cut_and_every_row_stays_one_line(db, filled):
    with filled.begin("examine", {}, task="a-task-with-a-name-" * 10) as run:
        run.add(forecast(device="a device with [red]a name[/] " * 10))
    lines = db("list").stdout.splitlines()
    assert len(lines) == 4
    assert lines[1].endswith(" 1")
    assert "…" in lines[1]
    (line,) = [line for line in db("show", "last").stdout.splitlines() if line.startswith("0")]
    assert "250 ms" in line
    assert "a device" in line


def test_show_a_run_with_its_results(db, filled):
    run = filled.runs(task="embed")[0]
    text = db("show", run.id[-6:]).stdout
    for words in (run.id, 'examine {"batch":8}', "measurement", "500 ms", "H100-SXM", "250 ms"):
        assert words in text
    document = json.loads(db("show", run.id, "--json").stdout)
    assert document["run"]["arguments"] == {"batch": 8}
    assert [row["kind"] for row in document["results"]] == ["measurement", "forecast"]
    assert "RuntimeError: no luck" in db("show", "last").stdout


def test_show_a_result_by_its_place_or_number(db, filled):
    run = filled.runs(task="embed")[0]
    row = filled.results()[1]
    for name in (f"{run.id}/1", f"{run.id[-6:]}/1", str(row.id)):
        document = json.loads(db("show", name, "--json").stdout)
        assert document["result"]["digest"] == row.digest
        assert document["record"]["device"] == "H100-SXM"
    text = db("show", f"{run.id}/1").stdout
    assert "(50 entries; --json shows them)" in text
    assert row.digest in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "zzz"], 2, "no run is called 'zzz'"),
        (["show", "99"], 2, "no result has the number 99"),
        (["show", "last/7"], 2, "has 0 results, counted from 0; got '7'"),
        (["list", "--status", "doen"], 2, "'doen' is not one of"),
        (["list", "--outcome", "child-dead"], 2, "no outcome is called 'child-dead'. Did you mean 'child-died'?"),
        (["export", "zzz", "--out", "never.jsonl"], 2, "no run is called 'zzz'"),
        (["export"], 2, "Missing option '--out'"),
        (["import", "never.jsonl"], 2, "never.jsonl cannot be read"),
    ],
)
def test_a_slip_is_told_with_code_2(db, arguments, code, message):
    done = db(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr


def test_show_says_how_a_run_ended_and_outcomes_what_that_means(db):
    assert "outcome  error\n" in db("show", "last").stdout
    means = json.loads(CliRunner().invoke(main, ["db", "outcomes", "--json"]).stdout)
    assert means["child-died"].startswith("the process that measures crashed")
    assert "disk-full" in CliRunner().invoke(main, ["db", "outcomes"]).stdout


@pytest.mark.parametrize("verb", ["list", "check", "show"])
def test_a_store_that_was_named_but_is_not_there_is_not_made(db, tmp_path, verb):
    done = db(verb, *(["last"] if verb == "show" else []), store=str(tmp_path / "typo.db"))
    assert done.exit_code == 3
    assert "there is no store at" in done.stderr
    assert not (tmp_path / "typo.db").exists()


def test_export_and_import_move_runs_between_stores(db, tmp_path):
    out, target = str(tmp_path / "all.jsonl"), str(tmp_path / "new.db")
    assert db("export", "--out", out).stdout == f"2 runs with 2 results written to {out}\n"
    assert db("import", out, store=target).stdout == "2 runs with 2 results restored, 0 were there already\n"
    assert json.loads(db("import", out, "--json", store=target).stdout)["skipped"] == 2
    assert (
        json.loads(db("list", "--json", store=target).stdout)["runs"] == json.loads(db("list", "--json").stdout)["runs"]
    )
    exported = json.loads(db("export", "last", "--format", "csv", "--out", f"{out}.csv", "--json").stdout)
    assert exported == {"file": f"{out}.csv", "runs": 0, "results": 0}  # the last run has no results


def test_check_says_sound_or_ends_with_code_4(db, filled):
    done = db("check")
    assert (done.exit_code, done.stdout) == (0, f"{filled.place}: 2 runs, 2 results, 0 problems\n")
    run = filled.begin("run", {})
    connection = sqlite3.connect(filled.place, isolation_level=None)
    connection.execute("UPDATE results SET payload = 'x' WHERE id = 1")
    connection.execute(f"UPDATE runs SET pid = {2**22 + 1} WHERE id = '{run.id}'")
    connection.close()
    done = db("check")
    assert done.exit_code == 4
    assert "damaged: result 1" in done.stdout
    assert f"broken run {run.id}" in done.stdout
    done = db("check", "--json")
    assert done.exit_code == 4
    document = json.loads(done.stdout)
    assert (document["sound"], document["results"], document["broken"]) == (False, 2, [run.id])


def test_a_file_that_is_no_store_ends_with_code_4_and_one_line(db, tmp_path):
    (tmp_path / "notes.txt").write_text("notes\n" * 1000)
    done = db("check", store=str(tmp_path / "notes.txt"))
    assert done.exit_code == 4
    assert done.stderr.startswith("DamagedData: store ")
    assert len(done.stderr.splitlines()) == 1


def test_the_commands_on_the_store_never_import_torch(filled):
    call = "from gnomon.cli import main; main(sys.argv[1:], standalone_mode=False)"
    code = f"import sys; {call}; print('torch' in sys.modules)"
    for verb in (["list"], ["show", "last"], ["check"]):
        command = [sys.executable, "-c", code, "db", *verb, "--store", filled.place]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"
