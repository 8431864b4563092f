import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import CheckFailed
from gnomon.measure.outputs import outputs_digest, refuse_nan


def test_nan_is_refused_with_its_place():
    outputs = (torch.ones(2), torch.tensor([[1.0, math.nan], [math.nan, 0.0]]))
    with pytest.raises(CheckFailed, match=r"int8: output 1 of shape \(2, 2\) holds 2 NaN of 4 values"):
        refuse_nan(outputs, "int8")


def test_infinities_and_integers_pass():
    assert refuse_nan((torch.tensor([math.inf, -math.inf]), torch.arange(3)), "eager") is None


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20), st.integers(0, 2**16))
def test_noise_far_below_the_rounding_leaves_the_digest(values, seed):
    scale = max(map(abs, values)) or 1.0
    x = torch.round(torch.tensor(values, dtype=torch.float64) / scale, decimals=3) * scale  # not on a rounding edge
    x[0] = scale
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale * 1e-6
    assert outputs_digest((x,)) == outputs_digest((x - noise * (x.abs() < scale),))


@pytest.mark.parametrize(
    "other",
    [
        (torch.tensor([1.0, 2.01]),),
        (torch.tensor([[1.0, 2.0]]),),
        (torch.tensor([1.0, 2.0], dtype=torch.float64),),
        (torch.tensor([1.0, 2.0]), torch.tensor(0)),
        (torch.tensor([1.0, math.inf]),),
        (),
    ],
)
def test_other_values_shapes_dtypes_or_counts_give_another_digest(other):
    assert outputs_digest((torch.tensor([1.0, 2.0]),)) != outputs_digest(other)


def test_the_sign_of_zero_and_the_strides_do_not_count():
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert outputs_digest((x,)) == outputs_digest((x.t().contiguous().t(),))
    assert outputs_digest((torch.tensor([0.0, 1.0]),)) == outputs_digest((torch.tensor([-0.0, 1.0]),))
    assert outputs_digest((torch.zeros(3),)) == outputs_digest((-torch.zeros(3),))
