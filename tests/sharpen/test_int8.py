import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.sharpen.int8 import here, integers, quantize_rows

VNNI = ("avx2", "avx512f", "avx512_vnni")


@pytest.mark.parametrize("isa", [VNNI, ("avx2", "avx_vnni"), ("avx2", "amx_int8")])
def test_all_eight_bits_are_used_where_products_are_summed_in_32_bits(isa):
    assert integers("x86_64", isa).largest_weight == 127
    assert not integers("x86_64", isa).saturates


def test_without_vnni_two_products_of_the_largest_values_fit_16_bits_and_one_more_would_not_be_wasted():
    largest = integers("x86_64", ("avx2", "avx512f")).largest_weight
    sums = [a * w + b * v for a, b in itertools.product((0, 255), repeat=2) for w, v in
            itertools.product((-largest, largest), repeat=2)]  # fmt: skip
    assert max(map(abs, sums)) <= 2**15 - 1 < 2 * 255 * (largest + 2)


def test_a_cpu_without_avx2_is_refused_with_what_it_has():
    assert "AVX2" in integers("x86_64", ("sse4_2",)).why_not
    assert "sse4_2" in integers("x86_64", ("sse4_2",)).why_not


def test_arm_widens_before_it_adds():
    assert integers("aarch64", ("neon",)) == integers("aarch64", ("neon", "neon_dotprod"))
    assert integers("aarch64", ("neon",)).why_not is None


@given(
    rows=st.integers(1, 6), columns=st.integers(1, 9), largest=st.sampled_from([63, 127]), seed=st.integers(0, 2**20)
)
def test_no_weight_moves_by_more_than_half_a_step_and_the_largest_fills_the_range(rows, columns, largest, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values, scale = quantize_rows(weight, largest)
    assert values.dtype == torch.int8
    back = values.double() * scale.double()[:, None]
    assert ((back - weight).abs() <= 0.5000001 * scale.double()[:, None]).all()
    assert (values.abs().amax(1) == largest).all()


def test_a_row_of_zeros_stays_zero():
    values, scale = quantize_rows(torch.zeros(2, 3))
    assert not values.any()
    assert (scale == 1).all()


def test_one_scale_per_channel_beats_one_per_tensor_by_as_much_as_channels_differ():
    size = torch.logspace(-3, 0, 16, dtype=torch.float64)[:, None]
    weight = size * torch.randn(16, 64, dtype=torch.float64)
    step = weight.abs().max() / 127
    per_tensor = torch.round(weight / step) * step
    values, scale = quantize_rows(weight)
    per_channel = values.double() * scale.double()[:, None]

    def relative(got):
        return (got - weight).norm(dim=1) / weight.norm(dim=1)

    assert (relative(per_channel) <= relative(per_tensor) * 1.0001).all()
    assert relative(per_channel).max() < 0.02
    assert relative(per_tensor)[0] > 0.5  # the smallest channel is all but lost


def test_the_largest_products_of_this_machine_are_exact():
    if here().why_not:
        pytest.skip(here().why_not)
    largest = here().largest_weight
    for sign in (1, -1):
        a = torch.full((32, 256), -128, dtype=torch.int8)
        b = torch.full((256, 64), sign * largest, dtype=torch.int8)
        expected = a.numpy().astype(np.int64) @ b.numpy().astype(np.int64)
        assert np.array_equal(torch._int_mm(a, b).numpy(), expected)
