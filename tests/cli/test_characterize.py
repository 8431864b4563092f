import json

from click.testing import CliRunner

from gnomon.cli import main
from gnomon.core.records import from_json
from gnomon.measure.phases.record import GcnCharacterization
from gnomon.store.store import open_store


def run(*arguments, exit_code=0):
    done = CliRunner().invoke(main, ["characterize", *map(str, arguments)], env={"COLUMNS": "110"})
    assert done.exit_code == exit_code, done.output
    return done


def test_one_model_on_one_graph_is_stored_printed_and_written(tmp_path):
    store, out = str(tmp_path / "results.db"), tmp_path / "gcn.json"
    done = run("gcn", "--graph", "imdb-bin", "--model", "gin", "--sessions", 1, "--no-explore", "--store", store,
               "--out", out, "--json")  # fmt: skip
    printed = from_json(json.loads(done.stdout), GcnCharacterization)
    assert {(one.graph, one.model) for one in printed.timed} == {("imdb-bin", "gin")}
    assert json.loads(out.read_text("utf-8")) == json.loads(done.stdout)
    (row,) = open_store(store).results(kind="gcn-characterization")
    assert open_store(store).load(row.id) == printed
    (command,) = open_store(store).runs()
    assert (command.status, command.arguments["models"], command.arguments["explore"]) == ("done", ["gin"], False)


def test_what_is_not_known_is_usage(tmp_path):
    store = ["--store", tmp_path / "r.db"]
    assert (
        "no graph is called 'pubmd'. Did you mean 'pubmed'?"
        in run("gcn", "--graph", "pubmd", *store, exit_code=2).output
    )
    assert (
        "does not exist; make it first" in run("gcn", "--out", tmp_path / "no" / "x.json", *store, exit_code=2).output
    )
    run("resnet", exit_code=2)
    run("gcn", "--sessions", 0, exit_code=2)
