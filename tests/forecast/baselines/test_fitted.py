from dataclasses import replace

import numpy as np
import pytest

from gnomon.core.errors import DamagedData, NotRunnable, UnknownName, UsageError
from gnomon.core.paths import home
from gnomon.forecast import gpu as gpu_model
from gnomon.forecast.baselines.fitted import Training, fit_baseline, load
from gnomon.forecast.baselines.linear import LinearRegression
from gnomon.forecast.pack.samples import Host
from gnomon.forecast.predict import forecast
from gnomon.forecast.predictors import PREDICTORS

from .. import pack_build
from ..build import device, matmul_graph, stream_graph

SMALL = Training(rows=240, epochs=2, batch=32, width=8, depth=3)
FITTED = ("linear-regression", "habitat", "neusight")


def half_peak(kernels, device):
    return kernels["flop"] / (0.5 * device.peak("float32")) + 10e-6


def times(predictor, kernels, device):
    return predictor.times(kernels, device, gpu_model.physics(kernels, device)).value


@pytest.mark.parametrize("name", FITTED)
def test_a_fit_knows_which_gpus_it_has_seen_and_no_other(name):
    samples = pack_build.pack(half_peak)
    without = [one for one in samples if one.device.name != "gamma"]
    assert fit_baseline(name, without, SMALL).fit.devices == ("alpha", "beta", "delta")
    assert fit_baseline(name, samples, SMALL).fit.devices == ("alpha", "beta", "delta", "gamma")


@pytest.mark.parametrize("name", FITTED)
def test_what_a_left_out_gpu_took_changes_nothing(name):
    samples = pack_build.pack(half_peak)
    fits = []
    for factor in (1.0, 7.0):
        changed = [
            replace(one, latency_s=one.latency_s * (factor if one.device.name == "gamma" else 1)) for one in samples
        ]
        fits.append(fit_baseline(name, [one for one in changed if one.device.name != "gamma"], SMALL))
    target, kernels = pack_build.gpu("gamma"), pack_build.linear(50, seed=9)
    np.testing.assert_array_equal(*(times(fit, kernels, target) for fit in fits))


@pytest.mark.parametrize("name", FITTED)
def test_the_same_rows_and_seed_give_the_same_fit(name):
    samples = pack_build.pack(half_peak)
    one, same = (fit_baseline(name, samples, SMALL) for _ in range(2))
    for kind, arrays in one.fit.families.items():
        for key, values in arrays.items():
            np.testing.assert_array_equal(values, same.fit.families[kind][key])


@pytest.mark.parametrize("name", ["habitat", "neusight"])
def test_another_seed_gives_another_network(name):
    samples = pack_build.pack(half_peak)
    one, other = (fit_baseline(name, samples, replace(SMALL, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(one.fit.families["linear/single"]["w0"], other.fit.families["linear/single"]["w0"])


@pytest.mark.parametrize("name", FITTED)
def test_a_gpu_is_only_its_data_sheet(name):
    baseline = fit_baseline(name, pack_build.pack(half_peak), SMALL)
    kernels = pack_build.linear(20, seed=3)
    target = pack_build.gpu("delta")
    np.testing.assert_array_equal(
        times(baseline, kernels, target), times(baseline, kernels, replace(target, name="another"))
    )


@pytest.mark.parametrize("name", FITTED)
def test_kinds_that_nobody_measured_are_priced_by_the_roofline(name):
    baseline = fit_baseline(name, pack_build.pack(half_peak), SMALL)
    unseen = stream_graph(category="reduction", name="aten.sum.default")
    wanted = forecast(unseen, device(), predictor=PREDICTORS.get("roofline")()).ops[0].time
    assert forecast(unseen, device(), predictor=baseline).ops[0].time == wanted


def test_kernels_hidden_behind_the_host_teach_nothing_and_its_launch_is_taken_off():
    host = Host(call_s=100e-6, launch_s=20e-6)
    samples = pack_build.pack(half_peak, host=host)
    hidden = [replace(one, latency_s=np.where(one.is_visible, one.latency_s, 100e-6)) for one in samples]
    target, kernels = pack_build.gpu("gamma"), pack_build.linear(50, seed=9)
    baseline = fit_baseline("linear-regression", hidden, SMALL)
    plain = fit_baseline("linear-regression", [one.take(np.flatnonzero(one.is_visible)) for one in samples], SMALL)
    np.testing.assert_array_equal(times(baseline, kernels, target), times(plain, kernels, target))
    seen = [one.take(np.flatnonzero(one.is_visible)) for one in samples]
    bare = [replace(one, latency_s=one.latency_s - host.launch_s, host=Host(0.0, 0.0)) for one in seen]
    np.testing.assert_allclose(
        times(plain, kernels, target), times(fit_baseline("linear-regression", bare, SMALL), kernels, target)
    )


@pytest.mark.parametrize("name", FITTED)
def test_a_kept_fit_is_found_again_and_forecasts_the_same(name):
    made = fit_baseline(name, pack_build.pack(half_peak), SMALL, keep=True)
    again = PREDICTORS.get(name)()
    assert again.fit.devices == made.fit.devices
    graph = matmul_graph(300, 500, 700)
    assert forecast(graph, device(), predictor=again).total == forecast(graph, device(), predictor=made).total


def test_a_baseline_that_was_not_fitted_says_how_to_fit_it():
    with pytest.raises(NotRunnable, match=r"linear-regression-1 is not shipped .*fit_baseline\(\.\.\., keep=True\)"):
        LinearRegression()


def test_a_damaged_fit_is_told_by_its_file():
    fit_baseline("linear-regression", pack_build.pack(half_peak), SMALL, keep=True)
    path = home() / "baselines" / "linear-regression-1.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedData, match=r"linear-regression-1\.npz: .* cannot be read: .* fit it again"):
        load(path)


@pytest.mark.parametrize("name", ["roofline", "physics", "gnomon"])
def test_what_is_not_fitted_here_is_refused(name):
    with pytest.raises(UsageError, match=f"{name} is not fitted by fit_baseline; wanted one of habitat"):
        fit_baseline(name, pack_build.pack(half_peak))


def test_a_name_that_nobody_has_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="neusight"):
        fit_baseline("neusigth", [])


def test_too_few_kernels_are_refused_with_what_was_wanted():
    samples = pack_build.pack(half_peak, count=10)
    with pytest.raises(UsageError, match=r"habitat: wanted 30 kernels or more .* got none in 4 groups"):
        fit_baseline("habitat", samples, SMALL)
