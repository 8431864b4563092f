import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.forecast import gpu as gpu_model
from gnomon.forecast.baselines import neusight
from gnomon.forecast.baselines.fitted import Training, fit_baseline
from gnomon.forecast.pack.fp32 import products
from gnomon.forecast.predict import forecast
from gnomon.forecast.predictors import PREDICTORS

from .. import pack_build
from ..build import device, stream_graph

TRAINING = Training(rows=1200, epochs=40, batch=32, width=32, depth=4)
SMALL = Training(rows=240, epochs=2, batch=32, width=8, depth=3)


def waves_law(kernels, device, tile=128):
    """The design's own law, as loops: whole waves of tiles at a utilization that grows with their number."""
    found = []
    for m, n, k, moved in zip(*(kernels[name] for name in ("m", "n", "k", "moved_bytes")), strict=True):
        tiles = math.ceil(m / tile) * math.ceil(n / tile)
        waves = math.ceil(tiles / device.units.value)
        tile_flop = 2 * tile * tile * k
        reached = min(device.peak("float32"), tiles * tile_flop / moved * device.memory_bandwidth_b_s.value)
        found.append(waves * device.units.value * tile_flop / (reached * (0.9 - 0.3 / waves)))
    return np.array(found)


@pytest.fixture(scope="module")
def small():
    return fit_baseline("neusight", pack_build.pack(waves_law), SMALL)


def test_a_law_of_waves_is_learned_within_a_tenth_on_shapes_and_a_gpu_not_seen():
    baseline = fit_baseline("neusight", pack_build.pack(waves_law, count=300), TRAINING)
    target, kernels = pack_build.gpu("unseen", pack_build.UNSEEN), pack_build.linear(200, seed=11)
    made = baseline.times(kernels, target, gpu_model.physics(kernels, target)).value
    assert np.mean(np.abs(made / waves_law(kernels, target) - 1)) < 0.1


def test_at_the_law_s_own_utilization_a_cut_gives_the_law_s_time():
    target, kernels = pack_build.gpu("beta"), pack_build.linear(60)
    cut = neusight.cut(kernels, target, neusight.own_tiles(kernels))
    np.testing.assert_allclose(cut.ideal_s / (0.9 - 0.3 / cut.waves), waves_law(kernels, target), rtol=1e-12)


@given(st.lists(st.floats(-60, 60), min_size=3, max_size=3), st.integers(1, 10**7))
def test_utilization_is_above_zero_and_at_most_one_from_one_wave_on(outputs, waves):
    made = float(neusight.utilization(torch.tensor([outputs]), torch.tensor([float(waves)])))
    assert 0 < made <= 1


def test_utilization_grows_with_the_number_of_waves():
    waves = torch.arange(1.0, 50.0)
    made = neusight.utilization(torch.tensor([[0.5, 0.0, 1.0]]).expand(len(waves), 3), waves)
    assert (made.diff() > 0).all()


@given(st.integers(1, 50000), st.integers(1, 50000), st.integers(1, 50000))
def test_no_product_is_forecast_faster_than_the_roofline(small, m, n, k):
    kernels = products("linear", np.ones(1), *(np.array([float(size)]) for size in (m, n, k)))
    physics = gpu_model.physics(kernels, device())
    assert small.times(kernels, device(), physics).value[0] >= physics.roofline_s[0] * (1 - 1e-5)  # float32


def test_one_tile_more_than_the_units_hold_is_another_wave():
    sizes = (np.array([128.0 * 100, 128.0 * 101]), np.full(2, 128.0), np.full(2, 4096.0))
    kernels = products("linear", np.ones(2), *sizes)
    assert neusight.cut(kernels, device(), np.full((2, 2), 128.0)).waves.tolist() == [1, 2]


def test_the_nearest_row_is_that_of_a_plain_search():
    rng = np.random.default_rng(0)
    keys, queries = rng.uniform(0, 1e5, (300, 9)), rng.uniform(0, 1e5, (700, 9))
    plain = [min(range(300), key=lambda i: float(((keys[i] - query) ** 2).sum())) for query in queries]
    assert neusight.nearest(keys, queries).tolist() == plain


def test_a_query_takes_the_tile_of_the_most_alike_measured_kernel():
    wide = [pack_build.measured(pack_build.gpu("alpha"), pack_build.linear(100, seed, tile), waves_law)
            for seed, tile in ((0, 64.0), (1, 256.0))]  # fmt: skip
    baseline = fit_baseline("neusight", wide, SMALL)
    learned = baseline.fit.families["linear/single"]
    for one in wide:
        found = learned["tiles"][neusight.nearest(learned["keys"], neusight._keys(one.kernels, one.device))]
        np.testing.assert_array_equal(found[:, 0], one.kernels["tile_a"])


def test_what_only_moves_memory_goes_at_full_bandwidth(small):
    law = lambda kernels, device: 3 * kernels["moved_bytes"] / device.memory_bandwidth_b_s.value  # noqa: E731
    baseline = fit_baseline("neusight", pack_build.pack(law, pack_build.elementwise), SMALL)
    copied = stream_graph(category="copy", name="aten.clone.default")
    for graph in (copied, stream_graph(name="aten.where.self")):
        wanted = forecast(graph, device(), predictor=PREDICTORS.get("roofline")()).ops[0].time.value_s
        assert forecast(graph, device(), predictor=baseline).ops[0].time.value_s == wanted
    added = stream_graph(name="aten.add.Tensor")
    assert forecast(added, device(), predictor=baseline).ops[0].time.value_s > wanted


def test_samples_without_tiles_are_refused_with_how_to_read_them():
    samples = [
        replace(one, kernels=replace(one.kernels, sizes={k: v for k, v in one.kernels.sizes.items() if k != "tile_a"}))
        for one in pack_build.pack(waves_law)
    ]
    with pytest.raises(UsageError, match=r"alpha: linear: NeuSight needs tile_a .* more=neusight\.TILES"):
        fit_baseline("neusight", samples, SMALL)
