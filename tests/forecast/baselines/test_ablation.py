"""The table's script on a pack in memory: every row judged, no GPU judged by what was fitted on it."""

import importlib.util
import sys
from pathlib import Path

import pytest

from gnomon.forecast.evaluate import ModelError
from gnomon.forecast.model import Model
from gnomon.forecast.predict import forecast

from .. import pack_build
from ..build import matmul_graph

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "forecast_ablation.py"
GRAPH = matmul_graph(2048, 2048, 2048, layers=4)


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("lightgbm")
    spec = importlib.util.spec_from_file_location("forecast_ablation", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["forecast_ablation"] = module
    spec.loader.exec_module(module)
    return module


def half_peak(kernels, device):
    return kernels["flop"] / (0.5 * device.peak("float32")) + 10e-6


def whole(samples):
    """Labels of one model on each GPU: four products at half the peak; the last label is doubted."""

    def judge(choose):
        found = []
        for one in samples:
            total = forecast(GRAPH, one.device, predictor=choose(one.device)).total
            measured_s = GRAPH.flop / (0.5 * one.device.peak("float32"))
            doubt = "throttled" if one.device.name == "delta" else ""
            found.append(ModelError(one.device.name, "made", "inf", 1, 1, "", measured_s, total, False, doubt))
        return found

    return judge


@pytest.fixture(scope="module")
def judged(script):
    samples = pack_build.pack(half_peak)
    return script.ablation(samples, whole(samples), script.QUICK)


def test_every_row_judges_every_gpu_on_its_kernels_and_its_models(script, judged):
    assert tuple(judged) == script.ROWS
    for row in judged.values():
        assert [one.device for one in row.kernels] == list(pack_build.SHEETS)
        assert [one.device for one in row.models] == list(pack_build.SHEETS)
        assert {one.count for one in row.kernels} == {50}  # the shapes of real models only


def test_a_roofline_is_half_off_where_kernels_reach_half_the_peak(script, judged):
    row = script.document(judged["roofline"])
    wanted = {"n": 4, "mean": 0.5, "median": 0.5, "worst": 0.5}
    assert row["e2e"] == pytest.approx(wanted, rel=2e-3)  # the host launches the first kernel in 7 us of 10 ms
    assert 0.4 < row["kernels"]["linear"]["mean_over_devices"] < 0.9


def test_labels_in_doubt_are_counted_apart(script, judged):
    row = script.document(judged["physics"])
    assert (row["e2e"]["n"], row["e2e_sound"]["n"]) == (4, 3)


def test_the_worst_is_no_better_than_the_mean_and_the_table_prints_both(script, judged):
    rows = {name: script.document(one) for name, one in judged.items()}
    for row in rows.values():
        assert row["e2e"]["worst"] >= row["e2e"]["mean"] > 0
    head, *lines = script.table(rows).splitlines()
    assert head.split() == [
        "predictor",
        "e2e",
        "mean",
        "median",
        "worst",
        "sound",
        "mean",
        "linear",
        *pack_build.SHEETS,
    ]
    assert [line.split()[0] for line in lines] == list(script.ROWS)
    assert float(lines[0].split()[1]) == 50.0


@pytest.mark.parametrize("name", ["linear-regression", "habitat", "neusight", "gnomon"])
def test_the_gpu_that_is_judged_is_not_in_the_fit(script, name):
    samples = pack_build.pack(half_peak)
    model = Model(script.fit.experts(samples))
    made = script.without(name, samples, "beta", model, script.QUICK)
    seen = made._model.devices if name == "gnomon" else set(made.fit.devices)
    assert seen == {"alpha", "gamma", "delta"}
