import numpy as np
import pytest

from gnomon.forecast import gpu as gpu_model
from gnomon.forecast.baselines.fitted import Training, fit_baseline

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


def test_far_from_everything_a_forecast_is_still_a_finite_time():
    baseline = fit_baseline("habitat", pack_build.pack(law), Training(rows=400, epochs=2, width=8, depth=2))
    huge = pack_build.linear(4)
    kernels = type(huge)("linear", "float32", {name: values * 1e9 for name, values in huge.sizes.items()})
    target = pack_build.gpu("unseen", (1e4, 1e4, 1e4))
    made = baseline.times(kernels, target, gpu_model.physics(kernels, target)).value
    assert np.all(np.isfinite(made))
    assert np.all(made > 0)
