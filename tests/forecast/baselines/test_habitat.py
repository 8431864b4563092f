import numpy as np
import pytest

from gnomon.forecast import gpu as gpu_model
from gnomon.forecast.baselines.fitted import Fit, Training, fit_baseline
from gnomon.forecast.baselines.habitat import Habitat

from .. import pack_build

TRAINING = Training(rows=1200, epochs=40, batch=32, width=32, depth=4)


def law(kernels, device):
    """Arithmetic and traffic, both at some share of their peak."""
    return kernels["flop"] / (0.6 * device.peak("float32")) + kernels["moved_bytes"] / (
        0.7 * device.memory_bandwidth_b_s.value
    )


@pytest.mark.parametrize("make", [pack_build.linear, pack_build.softmax, pack_build.elementwise])
def test_a_smooth_law_is_learned_within_a_fifth_on_shapes_and_a_gpu_not_seen(make):
    baseline = fit_baseline("habitat", pack_build.pack(law, make, count=300), TRAINING)
    target, kernels = pack_build.gpu("unseen", pack_build.UNSEEN), make(200, seed=11)
    made = baseline.times(kernels, target, gpu_model.physics(kernels, target)).value
    assert np.mean(np.abs(made / law(kernels, target) - 1)) < 0.2


@pytest.mark.parametrize("steep", [1e6, -1e6])
def test_a_network_that_runs_away_still_gives_a_finite_time(steep):
    learned = {"w0": np.full((1, 7), steep, np.float32), "b0": np.zeros(1, np.float32), "mean": np.zeros(7),
               "scale": np.ones(7), "middle": np.zeros(1)}  # fmt: skip
    baseline = Habitat(Fit(("alpha",), {"linear/single": learned}))
    kernels, target = pack_build.linear(4), pack_build.gpu("alpha")
    made = baseline.times(kernels, target, gpu_model.physics(kernels, target)).value
    assert np.all(np.isfinite(made))
    assert np.all(made > 0)
