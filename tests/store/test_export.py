import csv
import io
import json
import sqlite3

import pytest

from gnomon.core.errors import DamagedData, UsageError
from gnomon.store.export import export, import_jsonl, write_csv
from gnomon.store.store import open_store
from tests.store.build import forecast, measurement


@pytest.fixture
def filled(store):
    with store.begin("examine", {"task": "naïve"}, task="embed") as run:
        run.add(measurement())
        run.add(forecast())
    with pytest.raises(RuntimeError), store.begin("examine", {}, task="other"):
        raise RuntimeError("no luck")
    return store


@pytest.fixture
def other(tmp_path):
    return open_store(str(tmp_path / "other.db"))


def contents(store):
    runs = store.runs(limit=None)
    return runs, [(row.run_id, row.position, row.digest, store.load(row.id)) for row in store.results()]


def test_what_is_exported_and_imported_is_the_same_store(filled, other, tmp_path):
    moved = export(filled, tmp_path / "all.jsonl", "jsonl")
    assert (moved.runs, moved.results) == (2, 2)
    assert import_jsonl(other, tmp_path / "all.jsonl") == moved
    assert contents(other) == contents(filled)


def test_an_export_of_the_first_version_gets_outcomes_from_the_states_of_its_runs(filled, other, tmp_path):
    export(filled, tmp_path / "all.jsonl", "jsonl")
    documents = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    documents[0]["version"] = 1
    for document in documents:
        document.get("run", {}).pop("outcome", None)
    (tmp_path / "old.jsonl").write_text("\n".join(map(json.dumps, documents)))
    import_jsonl(other, tmp_path / "old.jsonl")
    assert [(run.task, run.outcome) for run in other.runs()] == [("other", "error"), ("embed", "done")]


def test_importing_twice_adds_nothing(filled, other, tmp_path):
    export(filled, tmp_path / "all.jsonl", "jsonl")
    import_jsonl(other, tmp_path / "all.jsonl")
    again = import_jsonl(other, tmp_path / "all.jsonl")
    assert (again.runs, again.results, again.skipped) == (0, 0, 2)
    assert contents(other) == contents(filled)


def test_one_run_is_exported_alone(filled, other, tmp_path):
    run = filled.runs(task="embed")[0]
    export(filled, tmp_path / "one.jsonl", "jsonl", run.id)
    import_jsonl(other, tmp_path / "one.jsonl")
    assert other.runs() == [run]


def test_a_sqlite_export_is_a_store_of_its_own(filled, tmp_path):
    export(filled, tmp_path / "copy.db", "sqlite")
    assert contents(open_store(str(tmp_path / "copy.db"))) == contents(filled)
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy.db"]
    with pytest.raises(UsageError, match="is a store itself: open it with --store"):
        import_jsonl(filled, tmp_path / "copy.db")


def test_the_csv_has_one_line_for_each_result_with_its_columns(filled):
    text = io.StringIO()
    write_csv(filled, text)
    rows = list(csv.DictReader(text.getvalue().splitlines()))
    assert [(row["kind"], row["latency_s"], row["verdict"]) for row in rows] == [
        ("measurement", "0.5", ""),
        ("forecast", "0.25", ""),
    ]
    assert {row["status"] for row in rows} == {"done"}


def test_a_run_that_was_running_is_broken_where_it_is_imported(store, other, tmp_path):
    run = store.begin("examine", {})
    run.add(forecast())
    export(store, tmp_path / "all.jsonl", "jsonl")
    import_jsonl(other, tmp_path / "all.jsonl")
    assert (other.run(run.id).status, other.run(run.id).error) == ("broken", "was still running when it was exported")
    assert other.run(run.id).outcome == "killed"
    run.add(forecast("T4"))
    export(store, tmp_path / "more.jsonl", "jsonl")
    with pytest.raises(UsageError, match="already, with other results; nothing imported"):
        import_jsonl(other, tmp_path / "more.jsonl")


def test_nothing_is_overwritten_and_no_folder_made(filled, tmp_path):
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(UsageError, match="exists already; nothing is overwritten"):
        export(filled, tmp_path / "there.csv", "csv")
    with pytest.raises(UsageError, match="does not exist; make it first"):
        export(filled, tmp_path / "typo" / "all.csv", "csv")
    assert (tmp_path / "there.csv").read_text() == "mine"


@pytest.mark.parametrize("format", ["jsonl", "sqlite"])
def test_a_damaged_result_is_not_exported_and_no_file_is_left(filled, tmp_path, format):
    connection = sqlite3.connect(filled.place, isolation_level=None)
    connection.execute("UPDATE results SET digest = 'sha256:0' WHERE id = 2")
    connection.close()
    with pytest.raises(DamagedData, match="wanted the digest sha256:0"):
        export(filled, tmp_path / "all.out", format)
    assert list(tmp_path.glob("all.out*")) == []


def edited(index, edit):
    def change(lines):
        document = json.loads(lines[index])
        edit(document)
        return [*lines[:index], json.dumps(document), *lines[index + 1 :]]

    return change


# the lines of the file: head, the run 'embed', its two results, the run 'other'
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda lines: lines[:3], DamagedData, "was cut off: run .* has 2 results, 1 are here"),
        (lambda lines: [*lines[:3], lines[3][:-9]], DamagedData, r":4: this is no line of an export; was the file cut"),
        (lambda lines: [lines[0], *lines[2:]], DamagedData, r":2: wanted a run"),
        (lambda lines: [*lines[:2], lines[3], lines[2], lines[4]], DamagedData, ":3: altered: wanted result 0"),
        (edited(2, lambda d: d["record"].update(batch=9)), DamagedData, r":3: altered: wanted .*sha256"),
        (edited(2, lambda d: d.pop("digest")), DamagedData, ":3: wanted result 0"),
        (edited(2, lambda d: d["record"].update(batch=float("nan"))), DamagedData, ":3: wanted result 0"),
        (edited(2, lambda d: d["record"].update(schema="x")), DamagedData, ":3: wanted result 0"),
        (edited(1, lambda d: d["run"].update(status="finished")), DamagedData, ":2: wanted a run.*status"),
        (edited(1, lambda d: d["run"].update(id="../../x")), DamagedData, r":2: no run has the id '\.\./\.\./x'"),
        (edited(0, lambda d: d.update(version=3)), DamagedData, ":1: wanted version 1 or 2, got 3; upgrade gnomon"),
        (edited(1, lambda d: d["run"].update(outcome="x")), DamagedData, ":2: run .* has the outcome 'x', which there"),
        (lambda lines: ["name,value", "a,1"], UsageError, ":1: this is no line of an export"),
        (lambda lines: ['{"name": 1}'], UsageError, ":1: this is no export of a store"),
        (lambda lines: ["[" * 100_000], UsageError, ":1: this is no line of an export"),
        (lambda lines: [], UsageError, ":1: this is no export of a store"),
    ],
)  # fmt: skip
def test_a_file_that_was_cut_or_altered_restores_nothing(filled, other, tmp_path, change, error, message):
    path = tmp_path / "all.jsonl"
    export(filled, path, "jsonl")
    lines = path.read_text().splitlines()
    assert len(lines) == 5
    path.write_text("\n".join(change(lines)))
    with pytest.raises(error, match=message):
        import_jsonl(other, path)
    assert other.runs() == []


def test_a_file_that_is_not_there_is_told(store, tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.jsonl cannot be read: No such file"):
        import_jsonl(store, tmp_path / "nothing.jsonl")
