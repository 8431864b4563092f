"""The main job on every shipped task, in a reduced form: one session, small sizes, few recipes."""

import json

import pytest
from click.testing import CliRunner

from gnomon import pipeline
from gnomon.cli import main
from gnomon.core.errors import DamagedData
from gnomon.pipeline import examining
from gnomon.spec.resolve import resolve
from gnomon.store.store import open_store

REDUCED = {
    "sentence-embedding": {"L": 16},
    "sentence-embedding-batch": {"B": 4, "L": 48},
    "gpt2-generation-step": {"P": 8},
    "resnet50-classification": {"S": 64},
    "gcn-node-classification": {"V": 64, "E": 256},
}


RECIPES = {"gcn-node-classification": ("bf16",), "sentence-embedding-batch": ("attend.pack",)}


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _peaks_are_measured_once(shared_home, monkeypatch):
    monkeypatch.setenv("GNOMON_HOME", str(shared_home))


@pytest.mark.parametrize("name", REDUCED)
def test_every_shipped_task_is_examined(name, tmp_path):
    task = resolve(name, dims=REDUCED[name])
    store = open_store(str(tmp_path / "results.db"))
    recipes = RECIPES.get(name, ())
    plan = pipeline.Plan(recipes=recipes, sessions=1, devices=("T4", "H100-SXM"))
    done = pipeline.examine(task, store, plan=plan, out=tmp_path / "out", command="gnomon examine")
    assert done.graph.unknown == {}
    assert done.measurement.latency["p50"].value > 0
    assert {run.level for run in done.measurement.levels} == {"model", "layer", "operator"}
    assert [f.device for f in done.forecasts][1:] == ["NVIDIA Tesla T4", "NVIDIA H100 SXM"]
    assert done.forecasts[2].total.value_s <= done.forecasts[1].total.value_s
    assert tuple(change.recipe for change in done.changes) == recipes
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert name in page
    assert "NVIDIA H100 SXM" in page
    assert pipeline.recall(store, done.run_id) == done
    trace = json.loads((tmp_path / "out" / "trace.json").read_text("utf-8"))
    assert sum(event["ph"] == "X" for event in trace["traceEvents"]) == len(done.measurement.spans)


def test_the_stages_work_on_their_own_from_the_command_line(tmp_path):
    sizes = ["--dim", "V=64", "--dim", "E=256", "--store", str(tmp_path / "results.db")]
    task = "gcn-node-classification"

    def run(*arguments, exit_code=0):
        done = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
        assert done.exit_code == exit_code, done.output
        return done.stdout

    measured = json.loads(run("run", task, "--sessions", 2, "--json", *sizes))
    assert len(measured["levels"][0]["sessions"]) == 2
    forecast = json.loads(run("forecast", task, "--device", "L4", "--json", *sizes))
    assert forecast["forecasts"][0]["device"] == "NVIDIA L4"
    assert "index_add" in run("forecast", task, "--device", "L4", *sizes)
    trace = json.loads(run("trace", task, "--level", "layer", "--out", tmp_path / "t.json", "--json", *sizes))
    assert trace["spans"] == sum(e["ph"] == "X" for e in json.loads((tmp_path / "t.json").read_text())["traceEvents"])
    compared = json.loads(run("compare", task, "--recipe", "bf16", "--sessions", 1, "--json", *sizes))
    assert set(compared["ratios"]) == {"bf16"}
    runs = json.loads(run("db", "list", "--json", "--store", tmp_path / "results.db"))["runs"]
    assert {r["command"] for r in runs} == {"run", "forecast", "trace", "compare"}
    assert {r["status"] for r in runs} == {"done"}
    first = next(r["id"] for r in runs if r["command"] == "run")
    stored = json.loads(run("compare", first, first, "--json", "--store", tmp_path / "results.db"))
    assert stored["ratio"]["speedup"]["value"] == pytest.approx(1)
    assert stored["aspects"] == []
    run("compare", first, "--store", tmp_path / "results.db", exit_code=2)


def test_a_run_that_was_no_examination_has_no_report(tmp_path):
    store = open_store(str(tmp_path / "results.db"))
    with store.begin("run", {}) as run:
        pass
    with pytest.raises(DamagedData, match=r"holds no opgraph; only a finished examine has a report"):
        pipeline.recall(store, run.id)


def test_a_device_without_the_precision_is_told_and_the_others_are_forecast(tmp_path):
    task = resolve("gcn-node-classification", dims=REDUCED["gcn-node-classification"], dtype="bfloat16")
    with open_store(str(tmp_path / "results.db")).begin("forecast", {}) as run:
        graph = pipeline.capture(task, run)
        devices = examining._devices(("P4", "A100-80GB-SXM"), pipeline.this_machine(1, run))[1:]
        forecasts, remarks = pipeline.forecast_everywhere(task, graph, devices, run)
    assert [f.device for f in forecasts] == ["NVIDIA A100 80GB SXM"]
    assert len(remarks) == 1
    assert "Tesla P4 has no bfloat16 peak" in remarks[0]
