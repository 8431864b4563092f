import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gnomon.forecast import gpu as gpu_model
from gnomon.forecast.baselines.fitted import fit_baseline
from gnomon.forecast.baselines.linear import relative_line

from .. import pack_build

sizes = arrays(float, st.just(12), elements=st.floats(0.1, 1e3))


@given(st.floats(1e-3, 1e3), st.floats(0, 1e3))
def test_a_line_is_recovered_from_its_points(slope, intercept):
    x = np.linspace(1.0, 50.0, 20)
    line = relative_line(x, slope * x + intercept)
    np.testing.assert_allclose(line.slope * x + line.intercept, slope * x + intercept, rtol=1e-6)
    assert line.error < 1e-6


@given(sizes, sizes, st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)), min_size=20, max_size=20))
def test_no_line_without_negative_coefficients_has_less_squared_relative_error(x, y, others):
    line = relative_line(x, y)
    assert min(line.slope, line.intercept) >= 0

    def loss(slope, intercept):
        return sum(((slope * a + intercept) / b - 1) ** 2 for a, b in zip(x, y, strict=True))

    least = loss(line.slope, line.intercept)
    assert all(least <= loss(a, b) + 1e-9 * (1 + least) for a, b in others)


@pytest.mark.parametrize(("size", "make"), [("flop", pack_build.linear), ("moved_bytes", pack_build.elementwise)])
def test_rates_that_follow_bandwidth_are_carried_to_a_gpu_that_nobody_measured(size, make):
    def law(kernels, device):
        rate = 5.0 * device.memory_bandwidth_b_s.value + 3e11
        return kernels[size] / rate + 6e-6

    target, kernels = pack_build.gpu("unseen", pack_build.UNSEEN), make(100, seed=7)
    baseline = fit_baseline("linear-regression", pack_build.pack(law, make))
    made = baseline.times(kernels, target, gpu_model.physics(kernels, target)).value
    np.testing.assert_allclose(made, law(kernels, target), rtol=1e-3)
