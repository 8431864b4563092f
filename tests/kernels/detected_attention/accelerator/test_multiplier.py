"""Split products are exact, and their number is what the array's rate says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.kernels.detected_attention.accelerator.design import BITS
from gnomon.kernels.detected_attention.accelerator.multiplier import UNIT_BITS, multiply, rate


def every(bits):
    return np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_split_product_of_every_pair_is_the_product(bits):
    a, b = np.meshgrid(every(bits), every(bits))
    np.testing.assert_array_equal(multiply(a, b, bits).values, a * b)


@given(a=st.integers(-(2**15), 2**15 - 1), b=st.integers(-(2**15), 2**15 - 1))
def test_the_split_product_of_sixteen_bits_is_the_product(a, b):
    assert multiply(np.array([a]), np.array([b]), 16).values.tolist() == [a * b]


@pytest.mark.parametrize("bits", BITS)
def test_an_element_makes_as_many_narrow_products_as_a_wide_one_is_split_into(bits):
    zero = np.zeros(1, dtype=np.int64)
    assert multiply(zero, zero, bits).elementary == (bits // UNIT_BITS) ** 2
    assert rate(bits) * multiply(zero, zero, bits).elementary == multiply(zero, zero, 16).elementary


def test_operands_that_do_not_fit_and_other_widths_are_refused():
    one = np.array([1])
    with pytest.raises(ValueError, match="b does not fit into 4 bits: 8 to 8"):
        multiply(one, np.array([8]), 4)
    with pytest.raises(ValueError, match="bits must be one of 2, 4, 8, 16; got 3"):
        multiply(one, one, 3)
    with pytest.raises(ValueError, match="bits must be one of"):
        rate(32)
