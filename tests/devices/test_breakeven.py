import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.core.records import from_json, to_json
from gnomon.devices.breakeven import BreakEven, Kernel

SHAPES = [(1, 512, 512), (64, 512, 512), (64, 2048, 2048)]


def table(kind="sparsity", levels=(0.5, 0.75, 0.9), ratio=lambda m, level: 2 * (1 - level) + 0.1 * (m == 1)):
    kernels = tuple(
        Kernel(*shape, level, ratio(shape[0], level), 0.9 * ratio(shape[0], level), 1.2 * ratio(shape[0], level))
        for shape in SHAPES
        for level in levels
    )
    return BreakEven("here", kind, "made up", 1, "2026-01-01T00:00:00+00:00", kernels)


def test_a_measured_kernel_is_given_back():
    made = table()
    for kernel in made.kernels:
        assert made.ratio(kernel.m, kernel.n, kernel.k, kernel.level) == (kernel.ratio, kernel.low, kernel.high)


sizes = st.integers(1, 10_000)


@given(sizes, sizes, sizes, st.floats(0.5, 0.9))
def test_any_other_lies_between_those_that_were_measured(m, n, k, level):
    made = table()
    found = made.ratio(m, n, k, level)
    ratios = [kernel.ratio for kernel in made.kernels]
    assert found.low <= found.value <= found.high
    assert min(ratios) * (1 - 1e-9) <= found.value <= max(ratios) * (1 + 1e-9)


@given(sizes, sizes, sizes, st.floats(0.5, 0.9), st.floats(0.5, 0.9))
def test_sparser_is_never_slower_where_that_was_measured(m, n, k, one, other):
    low, high = sorted((one, other))
    assert table().ratio(m, n, k, high).value <= table().ratio(m, n, k, low).value * (1 + 1e-9)


@pytest.mark.parametrize(("kind", "levels", "asked"), [("sparsity", (0.5, 0.9), 0.95), ("bits", (4, 8), 6)])
def test_what_was_not_measured_is_refused(kind, levels, asked):
    with pytest.raises(UsageError, match=rf"table of here \(2026-01-01\) holds {kind} .*; got {asked}"):
        table(kind, levels, lambda m, level: 0.5).ratio(1, 512, 512, asked)


def test_it_survives_the_store():
    assert from_json(to_json(table()), BreakEven) == table()
