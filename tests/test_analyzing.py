"""gnomon analyze from the command line, on stored runs of the shipped tasks and on an imported trace."""

import csv
import dataclasses
import io
import json

import pytest
from click.testing import CliRunner

from gnomon import pipeline
from gnomon.cli import main
from gnomon.core.errors import DamagedData, UsageError
from gnomon.core.records import from_json
from gnomon.measure.analyses import registry
from gnomon.measure.analyses.analysis import Analysis
from gnomon.pipeline import analyzing
from gnomon.spec.resolve import resolve
from gnomon.store.store import open_store
from tests.measure.analyses.traces import gpu_trace
from tests.measure.tasks import linear
from tests.report.example import make_device, make_examination
from tests.test_pipeline import REDUCED

NEVER_ON_A_CPU = {"device-time"}


@pytest.fixture(scope="module")
def examination():
    return make_examination(layers=1)


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _peaks_are_measured_once(shared_home, monkeypatch):
    monkeypatch.setenv("GNOMON_HOME", str(shared_home))


def run(*arguments, exit_code=0):
    done = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.stdout if exit_code == 0 else done.output


def answered(name, store, budget_s=0.3):
    """Every analysis of a reduced task, measured and completed here."""
    task = resolve(name, dims=REDUCED[name])
    with store.begin("run", {}, task.name, task.digest) as first:
        first.add(task)
        first.add(make_device())  # peaks made up: to measure them takes longer than all of this
        pipeline.measure(task, first, levels=("model", "layer", "operator"), sessions=1)
    found = analyzing.subject(store, first.id)
    with store.begin("analyze", {"run": first.id}) as second:
        found = analyzing.complete(store, first.id, found, ["all"], second, budget_s=budget_s)
    return first.id, found, {one.name: one for one in analyzing.analyze(found, ["all"])}


@pytest.mark.parametrize("name", [
    "gcn-node-classification",
    pytest.param("sentence-embedding", marks=pytest.mark.slow),
    pytest.param("gpt2-generation-step", marks=pytest.mark.slow),
    pytest.param("resnet50-classification", marks=pytest.mark.slow),
])  # fmt: skip
def test_every_analysis_runs_on_the_shipped_tasks(name, tmp_path):
    store = open_store(str(tmp_path / "results.db"))
    run_id, found, answers = answered(name, store)
    assert {n for n, one in answers.items() if one.missing} == NEVER_ON_A_CPU
    by_part = dict(
        zip(answers["ideal-latency"].column("part"), answers["ideal-latency"].column("seconds"), strict=True)
    )
    if found.measurement.operators_cover <= 1:
        assert by_part["lower bound"] <= by_part["measured latency"]
    assert by_part["critical path"] <= by_part["lower bound"] * 1.01
    assert by_part["below it: missed fusion"] >= 0
    (batch,) = answers["batch-size"].rows
    assert batch[0] == found.measurement.batch
    again = analyzing.subject(open_store(str(tmp_path / "results.db")), run_id)  # what was completed is found again
    assert {one.name: one for one in analyzing.analyze(again, ["all"])} == answers


def test_a_stored_run_is_analyzed_from_the_command_line(tmp_path):
    store = tmp_path / "results.db"
    sizes = ["--dim", "V=64", "--dim", "E=256"]
    run("run", "gcn-node-classification", "--sessions", 1, "--level", "layer", "--store", store, *sizes)
    offers = json.loads(run("analyze", "last", "--store", store, "--json"))
    assert [offer["name"] for offer in offers] == list(registry.FORMS)
    missing = {offer["name"]: offer["missing"] for offer in offers}
    assert missing["layers"] is None
    assert "no operator graph is stored" in missing["layer-work"]
    assert "standard" not in run("analyze", "last", "--store", store)
    completed = json.loads(run("analyze", "last", "layer-work", "A5", "--complete", "--store", store, "--json"))
    (work, types) = (from_json(one, Analysis) for one in completed)
    assert (work.name, types.name) == ("layer-work", "layer-types")
    assert sum(flop or 0 for flop in work.column("flop")) > 0
    first = json.loads(run("db", "list", "--json", "--store", store))["runs"][-1]["id"]
    table = list(csv.reader(io.StringIO(run("analyze", first, "layer-types", "--csv", "--store", store))))
    assert [row[0] for row in table[1:]] == list(types.column("type"))
    assert "## A5 layers by type" in run("analyze", first, "A5", "--markdown", "--store", store)
    assert "<section" in run("analyze", first, "A5", "--html", "--store", store)
    assert "more rows; --rows" in run("analyze", first, "layers", "--rows", 1, "--store", store)


def check_sweep(answer):
    assert answer.column("batch") == (1, 2)
    assert sum(answer.column("optimal")) == 1
    for batch, mean, throughput in zip(*(answer.column(n) for n in ("batch", "mean_s", "throughput")), strict=True):
        assert mean * throughput == pytest.approx(batch)


def test_a_sweep_of_batch_sizes_finds_the_optimal_one(tmp_path):
    store = open_store(str(tmp_path / "results.db"))
    with store.begin("sweep-batches", {}) as stored:
        analyzing.sweep_batches(lambda batch: linear(64, dims={"B": batch}), [2, 1, 2], stored, sessions=1)
    (answer,) = json.loads(run("analyze", stored.id, "A1", "--json", "--store", tmp_path / "results.db"))
    check_sweep(from_json(answer, Analysis))


@pytest.mark.slow
def test_a_task_is_swept_from_the_command_line(tmp_path):
    place = ["--dim", "L=4", "--store", tmp_path / "results.db", "--json"]
    (answer,) = json.loads(run("analyze", "sentence-embedding", "--sweep-batches", "2,1", "--sessions", 1, *place))
    check_sweep(from_json(answer, Analysis))


@pytest.mark.parametrize(("arguments", "message"), [
    (["last", "layer-latencies"], "Did you mean 'layer-latency'?"),
    (["last", "layers", "--csv", "--json"], "wanted one of --json, --csv, --markdown and --html"),
    (["last", "layers", "--sessions", "3"], "belong to --sweep-batches"),
    (["sentence-embedding", "--sweep-batches", "1,two"], "wants whole numbers with commas between"),
    (["sentence-embedding", "--sweep-batches", "0,1"], "wanted batch sizes of at least 1"),
])  # fmt: skip
def test_a_wrong_request_is_told_before_any_work(arguments, message, tmp_path):
    assert message in run("analyze", *arguments, "--store", tmp_path / "results.db", exit_code=2)


def test_a_task_without_a_batch_has_none_to_sweep(tmp_path):
    plain = resolve("gcn-node-classification", dims=REDUCED["gcn-node-classification"])
    stored = open_store(str(tmp_path / "r.db")).begin("analyze", {})
    with pytest.raises(UsageError, match="has no dimension B to sweep; its dimensions are V, E, F"):
        analyzing.sweep_batches(lambda batch: plain, [1, 2], stored)


def test_a_run_without_a_measurement_cannot_be_analyzed(tmp_path):
    store = open_store(str(tmp_path / "results.db"))
    with store.begin("forecast", {}) as stored:
        pass
    with pytest.raises(DamagedData, match=r"\(done, forecast\) holds neither a measurement nor a trace"):
        analyzing.subject(store, stored.id)


def test_an_imported_trace_is_analyzed_with_the_peaks_of_a_named_device(tmp_path):
    store = open_store(str(tmp_path / "results.db"))
    with store.begin("import", {}) as stored:
        stored.add(gpu_trace())
    place = ["--store", tmp_path / "results.db"]
    device, roofline = (
        from_json(one, Analysis)
        for one in json.loads(run("analyze", stored.id, "A13", "A9", "--device", "V100-PCIE", "--json", *place))
    )
    assert device.rows[0][4] == pytest.approx(0.006)
    assert set(roofline.column("limited_by")) == {"memory", "compute"}
    completed = json.loads(run("analyze", stored.id, "cold-start", "--complete", "--json", *place))
    assert "a trace does not hold what came before it" in completed[0]["missing"]


def test_a_run_of_another_machine_is_not_completed_with_this_machines_peaks(tmp_path, examination):
    store = open_store(str(tmp_path / "results.db"))
    with store.begin("run", {}) as stored:
        task = resolve("gcn-node-classification", dims=REDUCED["gcn-node-classification"])
        stored.add(task)
        stored.add(dataclasses.replace(examination.measurement, task=task.name, dims=task.dims))
    found = analyzing.subject(store, stored.id)
    with store.begin("analyze", {"run": stored.id}) as second:
        found = analyzing.complete(store, stored.id, found, ["ideal-latency", "A15"], second)
    (ideal,) = analyzing.analyze(found, ["ideal-latency"])
    assert "the run was measured on AMD EPYC 7R13, this is" in ideal.missing
    assert found.device is None


def test_a_run_beside_must_be_of_the_same_task(tmp_path, examination):
    store = open_store(str(tmp_path / "results.db"))
    with store.begin("run", {}) as first:
        first.add(examination.measurement)
    with store.begin("run", {}) as second:
        pass
    with pytest.raises(UsageError, match="holds no measurement of sentence-embedding"):
        analyzing.subject(store, first.id, beside=[second.id])
    assert len(analyzing.subject(store, first.id, beside=[first.id]).measurements) == 2
