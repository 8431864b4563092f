"""`gnomon forecast fit`, `evaluate` and `opgraph` on a pack on disk."""

import csv
import json

import pytest
from click.testing import CliRunner

from gnomon.cli import main

from ..forecast.pack_files import write_pack

pytest.importorskip("pyarrow")
pytest.importorskip("lightgbm")


def run(*arguments):
    return CliRunner().invoke(main, ["forecast", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("pack"))


def test_a_predictor_is_fitted_judged_and_says_who_it_has_seen(pack, tmp_path):
    fitted = run("fit", "--pack", pack, "--out", tmp_path / "mine")
    assert fitted.exit_code == 0, fitted.output
    assert "10 experts of 2 GPUs" in fitted.output
    out = tmp_path / "accuracy.json"
    judged = run("evaluate", "--pack", pack, "--predictor", tmp_path / "mine", "--json", out)
    assert judged.exit_code == 0, judged.output
    assert "Whole models, as the predictor is" in judged.output
    seen = {one["device"]: one["seen"] for one in json.loads(out.read_text())["kernels"]}
    assert seen == {"alpha": True, "beta": True, "gamma": False}


def test_leave_one_out_has_seen_nobody(pack, tmp_path):
    run("fit", "--pack", pack, "--out", tmp_path)
    judged = run("evaluate", "--pack", pack, "--predictor", tmp_path, "--leave-one-out", "--json", "-")
    document = json.loads(judged.stdout)
    assert document["leave_one_out"]
    assert not any(one["seen"] for one in [*document["kernels"], *document["models"]])


def test_graphs_of_a_file_are_forecast_one_row_each(pack, tmp_path):
    out = tmp_path / "predictions.csv"
    files = ("--opgraphs", pack / "opgraphs.parquet", "--devices", pack / "devices.csv")
    done = run("opgraph", *files, "--device", "gamma", "--out", out)
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["mode"] for row in rows] == ["inf", "train"]
    assert all(0 < float(r["low_ms"]) < float(r["e2e_ms"]) < float(r["high_ms"]) for r in rows)


def test_an_unknown_device_of_a_pack_is_wrong_usage(pack, tmp_path):
    files = ("--opgraphs", pack / "opgraphs.parquet", "--devices", pack / "devices.csv")
    done = run("opgraph", *files, "--device", "delta", "--out", tmp_path / "x.csv")
    assert done.exit_code == 2
    assert "no device is called 'delta'" in done.output


def test_a_folder_that_is_no_pack_is_wrong_usage(tmp_path):
    done = run("evaluate", "--pack", tmp_path)
    assert done.exit_code == 2
    assert "wanted a pack with devices.csv" in done.output


def test_a_damaged_predictor_is_damaged_data(pack, tmp_path):
    (tmp_path / "model.json").write_text("{")
    done = run("evaluate", "--pack", pack, "--predictor", tmp_path)
    assert done.exit_code == 4


def test_a_fit_of_ones_own_forecasts_graphs_and_tasks(pack, tmp_path):
    run("fit", "--pack", pack, "--out", tmp_path / "mine")
    files = ("--opgraphs", pack / "opgraphs.parquet", "--devices", pack / "devices.csv", "--device", "gamma")
    times = {}
    for name in ("physics", tmp_path / "mine"):
        out = tmp_path / "predictions.csv"
        assert run("opgraph", *files, "--predictor", name, "--out", out).exit_code == 0
        times[name] = next(csv.DictReader(out.read_text().splitlines()))["e2e_ms"]
    assert len(set(times.values())) == 2
    store = ("--store", tmp_path / "results.db", "--json")
    task = run("gcn-node-classification", "--device", "T4", "--predictor", tmp_path / "mine", *store)
    assert task.exit_code == 0, task.output
    assert json.loads(task.stdout)["forecasts"][0]["predictor"].startswith("gnomon")


def test_a_folder_without_a_fit_is_damaged_data(tmp_path):
    done = run("gcn-node-classification", "--device", "T4", "--predictor", tmp_path, "--store", tmp_path / "results.db")
    assert done.exit_code == 4
    assert "model.json" in done.output
