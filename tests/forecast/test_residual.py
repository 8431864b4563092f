import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.forecast import gpu
from gnomon.forecast.forest import from_lightgbm
from gnomon.forecast.pack.fp32 import products
from gnomon.forecast.residual import BOUND, Expert, correct, family, traits, weigh

from .build import device

FLAT = from_lightgbm({"tree_info": [{"tree_structure": {"leaf_value": 0.0}}]})


def kernels(count=4):
    size = np.full(count, 1024.0)
    return products("linear", np.ones(count), size, size, size)


def expert(name, level, **changes):
    return Expert(name, traits(device(name=name, **changes)), level, FLAT)


def correction(experts, **changes):
    target = device(**changes)
    return correct(kernels(), gpu.physics(kernels(), target), target, experts)


def test_the_expert_of_an_equal_device_is_believed_whole():
    found = correction([expert("same", 0.3)])
    assert found.distance == 0
    np.testing.assert_allclose(found.log_factor, 0.3)


def test_a_near_expert_outweighs_a_far_one():
    near, far = expert("near", 0.2), expert("far", -0.5, cache_bytes=4e8)
    found = correction([far, near])
    assert found.weights["near"] > 0.9
    assert found.log_factor[0] == pytest.approx(0.2, abs=0.1)


@given(st.floats(-20, 20), st.floats(1e5, 1e9))
def test_a_correction_stays_within_a_factor_of_three_and_fades_with_distance(level, cache):
    own = correction([expert("only", level)])
    away = correction([expert("only", level, cache_bytes=cache)])
    assert np.all(np.abs(own.log_factor) <= BOUND)
    assert np.all(np.abs(away.log_factor) <= np.abs(own.log_factor) + 1e-12)


@given(st.lists(st.floats(1e5, 1e9), min_size=1, max_size=6))
def test_weights_sum_to_one(caches):
    experts = [expert(str(i), 0.0, cache_bytes=c) for i, c in enumerate(caches)]
    weights = weigh(traits(device()), experts)
    assert weights.sum() == pytest.approx(1)
    assert np.all(weights >= 0)


def test_nobody_measured_means_nothing_is_corrected():
    found = correction([])
    assert math.isinf(found.distance)
    np.testing.assert_array_equal(found.log_factor, 0)


def test_the_name_of_a_device_changes_nothing():
    a, b = (correction([expert("known", 0.3)], name=name).log_factor for name in ("x", "y"))
    np.testing.assert_array_equal(a, b)


def test_distance_is_symmetric_and_another_vendor_is_far():
    ours, theirs = (traits(device(vendor=v)) for v in ("test", "other"))
    assert ours.distance(theirs) == theirs.distance(ours) == pytest.approx(4)


def test_half_precisions_share_their_experts_and_single_does_not():
    assert family("linear", "float16") == family("linear", "bfloat16") != family("linear", "float32")
