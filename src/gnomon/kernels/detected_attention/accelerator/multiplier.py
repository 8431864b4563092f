"""The reconfigurable multiplier, bit by bit: a product of wide integers from products of narrow ones.

(a + b)(c + d) = ac + ad + bc + bd with a = high part times a power of two, b = low part, for both operands. The high
part carries the sign. Splitting until operands are UNIT_BITS wide takes (bits / UNIT_BITS)^2 elementary products, so an
array that makes one 16-bit product a cycle makes (16 / bits)^2 products of narrow operands.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnomon.kernels.detected_attention.accelerator.design import BITS, EXACT_BITS

UNIT_BITS = min(BITS)


class Product(NamedTuple):
    """values: int64. elementary: products of UNIT_BITS x UNIT_BITS operands that one value took."""

    values: NDArray[np.int64]
    elementary: int


def rate(bits: int) -> int:
    """Products of `bits`-wide operands that an element makes in a cycle. Raises ValueError for an unknown width."""
    _check(bits)
    return (EXACT_BITS // bits) ** 2


def multiply(a: NDArray[np.int64], b: NDArray[np.int64], bits: int) -> Product:
    """a * b as the hardware forms it. a, b: two's complement integers of `bits` bits.

    Raises ValueError for a width that is not one of BITS and for operands that do not fit into it.
    """
    _check(bits)
    for name, values in (("a", a), ("b", b)):
        if values.size and not -(2 ** (bits - 1)) <= values.min() <= values.max() < 2 ** (bits - 1):
            raise ValueError(f"{name} does not fit into {bits} bits: {values.min()} to {values.max()}")
    return _product(a.astype(np.int64), b.astype(np.int64), bits)


def _product(a: NDArray[np.int64], b: NDArray[np.int64], bits: int) -> Product:
    if bits == UNIT_BITS:
        return Product(a * b, 1)  # 2 x 2 bits, signed or not: a table of sixteen entries
    half = bits // 2
    low = (1 << half) - 1
    high_a, low_a = a >> half, a & low  # the arithmetic shift keeps the sign in the high part
    high_b, low_b = b >> half, b & low
    parts = [_product(x, y, half) for x, y in ((high_a, high_b), (high_a, low_b), (low_a, high_b), (low_a, low_b))]
    hh, hl, lh, ll = (part.values for part in parts)
    return Product((hh << bits) + ((hl + lh) << half) + ll, sum(part.elementary for part in parts))


def _check(bits: int) -> None:
    if bits not in BITS:
        raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}; got {bits}")
