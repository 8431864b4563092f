import csv

import numpy as np
import pytest

from gnomon.core.errors import UsageError
from gnomon.core.records import from_json, to_json
from gnomon.forecast import evaluate, fit, gpu
from gnomon.forecast.evaluate import Evaluation, predictions, write_predictions
from gnomon.forecast.pack import read_pack
from gnomon.forecast.pack.devices import find_device
from gnomon.forecast.predictors import Gnomon

from .pack_files import DEVICES, write_labels, write_pack

pytest.importorskip("pyarrow")
pytest.importorskip("lightgbm")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return read_pack(write_pack(tmp_path_factory.mktemp("pack")))


@pytest.fixture(scope="module")
def model(pack):
    return fit.fit_pack(pack.folder)


def test_only_devices_with_the_role_train_are_fitted(model):
    assert model.devices == {"alpha", "beta"}
    assert set(model.about["data"]) == {"devices.csv", "e2e_labels.csv", "kernels.parquet", "opgraphs.parquet"}


def test_experts_learn_the_factor_of_their_device(model):
    for experts in model.experts.values():
        for expert in experts:
            assert expert.level == pytest.approx(DEVICES[expert.device][3], abs=0.02)


def test_fitting_twice_gives_the_same_model(pack, model):
    again = fit.fit_pack(pack.folder)
    for name, experts in model.experts.items():
        for one, other in zip(experts, again.experts[name], strict=True):
            np.testing.assert_array_equal(one.forest.value, other.forest.value)


def test_a_device_between_two_measured_ones_is_forecast_by_their_law(pack, model):
    evaluation = evaluate.evaluate(pack, model, leave_one_out=False)
    unseen = [a for a in evaluation.kernels if a.device == "gamma"]
    assert len(unseen) == 5
    for accuracy in unseen:
        assert not accuracy.seen
        assert accuracy.mean < 0.06
        assert accuracy.coverage > 0.9


def test_what_is_left_without_a_device_has_not_seen_it(pack, model):
    left = fit.without(model, pack.samples, "alpha")
    assert left.devices == {"beta"}
    evaluation = evaluate.evaluate(pack, model, leave_one_out=True)
    assert not any(a.seen for a in evaluation.kernels)
    by_device = {a.device: a.mean for a in evaluation.kernels if a.what == "linear"}
    assert 0.04 < by_device["alpha"] < 0.2  # beta's factor is ten per cent off


def test_a_device_that_the_model_has_not_seen_leaves_it_as_it_is(pack, model):
    assert fit.without(model, pack.samples, "gamma") is model


def test_a_pack_without_a_device_to_train_on_is_refused(pack, tmp_path):
    write_pack(tmp_path)
    text = (tmp_path / "devices.csv").read_text().replace(",train,", ",heldout,")
    (tmp_path / "devices.csv").write_text(text)
    with pytest.raises(UsageError, match="no kernels of a device whose role is 'train'"):
        fit.fit_pack(tmp_path)


def test_an_evaluation_survives_the_store(pack, model):
    evaluation = evaluate.evaluate(pack, model, leave_one_out=False)
    assert from_json(to_json(evaluation), Evaluation) == evaluation
    assert {(m.device, m.mode) for m in evaluation.models} == {("alpha", "inf"), ("alpha", "train"), ("gamma", "inf")}


def test_labels_that_contradict_themselves_are_doubted(pack, model, tmp_path):
    write_pack(tmp_path)
    write_labels(tmp_path, {("alpha", "inf"): 2.0})
    with (tmp_path / "e2e_labels.csv").open("a") as file:
        file.write("alpha,toy,inf,64,8,,3,6.0,6.0,\nalpha,toy,train,64,4,,3,9.0,6.0,3.0\n")
    labels = list(csv.DictReader((tmp_path / "e2e_labels.csv").read_text().splitlines()))
    assert [evaluate._defect(label, labels) for label in labels] == ["", "throttled", "stalled"]


def test_whole_model_forecasts_add_forward_and_backward(pack):
    device = find_device(pack.folder / "devices.csv", "gamma")
    inference, training = predictions(pack.folder / "opgraphs.parquet", device, Gnomon())
    assert inference.bw_ms == 0
    assert inference.e2e_ms == inference.fw_ms
    assert training.e2e_ms == pytest.approx(training.fw_ms + training.bw_ms, rel=0.02)
    assert training.e2e_ms > inference.e2e_ms
    for row in (inference, training):
        assert 0 < row.low_ms < row.e2e_ms < row.high_ms


def test_predictions_are_written_as_a_table(pack, tmp_path):
    device = find_device(pack.folder / "devices.csv", "gamma")
    rows = predictions(pack.folder / "opgraphs.parquet", device, Gnomon())
    write_predictions(rows, tmp_path / "out.csv")
    read = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert list(read[0]) == "model mode seqlen batch option fw_ms bw_ms e2e_ms low_ms high_ms".split()
    assert [float(r["e2e_ms"]) for r in read] == pytest.approx([r.e2e_ms for r in rows], rel=1e-5)
    with pytest.raises(UsageError, match="cannot be written"):
        write_predictions(rows, tmp_path / "no" / "out.csv")


def test_no_kernel_is_forecast_below_its_roofline_whatever_was_learnt(pack, model):
    predictor = Gnomon(model)
    for one in pack.samples:
        physics = gpu.physics(one.kernels, one.device)
        times = predictor.times(one.kernels, one.device, physics)
        assert np.all(times.low >= physics.roofline_s)
        assert np.all(times.low <= times.value)
        assert np.all(times.value <= times.high)
