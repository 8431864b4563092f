import json

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.store.store import open_store
from tests.measure.traces.files import chrome, event, gpu_events, put


@pytest.fixture
def gnomon(tmp_path):
    place = str(tmp_path / "store.db")

    def call(*arguments):
        return CliRunner().invoke(main, [*map(str, arguments), "--store", place])

    call.place = place
    return call


def test_an_imported_trace_is_a_run_of_the_store(gnomon, tmp_path):
    done = gnomon("import", "trace", put(tmp_path, chrome(gpu_events()), "step.json.gz"))
    assert done.exit_code == 0
    assert "10 spans (1 model, 1 layer, 5 operator, 3 kernel) stored as run" in done.stdout
    assert "warning: left out events that repeat others" in done.stderr
    store = open_store(gnomon.place)
    (row,) = store.results(kind="trace")
    assert (row.task, row.variant, store.run("last").outcome) == ("step", "chrome", "done")
    assert len(store.load(row.id).spans) == 10


def test_the_json_says_the_levels(gnomon, tmp_path):
    done = gnomon("import", "trace", put(tmp_path, chrome([event("a", 0, 1)])), "--json")
    found = json.loads(done.stdout)
    assert (found["origin"], found["spans"], found["levels"], found["warnings"]) == ("chrome", 1, {"operator": 1}, [])


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (chrome([event("a", 0, 9)])[:-1], "truncated-trace"),
        (chrome([event("a", 0, 10), event("b", 5, 10)]), "overlapping-spans"),
        (chrome([event("a", 0, -1)]), "clock-backwards"),
        (chrome([event("a", float("nan"), 1)]), "bad-input"),
    ],
)
def test_a_damaged_trace_is_refused_with_code_4_and_the_store_names_why(gnomon, tmp_path, text, outcome):
    path = put(tmp_path, text)
    done = gnomon("import", "trace", path)
    assert done.exit_code == 4
    assert done.stderr.startswith(f"DamagedData: {path} has ")
    (run,) = json.loads(gnomon("db", "list", "--json").stdout)["runs"]
    assert (run["outcome"], run["status"], run["results"]) == (outcome, "failed", 0)
    assert outcome in gnomon("db", "show", "last").stdout


def test_lenient_imports_what_can_be_saved(gnomon, tmp_path):
    done = gnomon("import", "trace", put(tmp_path, chrome([event("a", 0, 10), event("b", 5, 10)])), "--lenient")
    assert done.exit_code == 0
    assert "warning: 1 spans of one thread that overlap (kept side by side)" in done.stderr


def test_a_file_that_is_not_there_ends_with_code_2(gnomon):
    assert gnomon("import", "trace", "none.json").exit_code == 2
