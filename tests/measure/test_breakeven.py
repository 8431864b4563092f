import pytest

from gnomon.measure import breakeven
from gnomon.measure.breakeven import SPARSITIES, measure_break_even


@pytest.mark.parametrize(("kind", "levels"), [("sparsity", list(SPARSITIES)), ("bits", [8.0])])
def test_every_shape_is_timed_at_every_level(kind, levels):
    said = []
    table = measure_break_even(kind, "here", budget_s=0.2, shapes=((4, 64, 32),), progress=said.append)
    assert (table.device, table.kind, table.levels) == ("here", kind, levels)
    assert len(said) == len(table.kernels) == len(levels)
    assert all(0 < kernel.low <= kernel.ratio <= kernel.high for kernel in table.kernels)


def test_nearly_empty_weights_are_faster_than_half_empty_ones():
    table = measure_break_even("sparsity", "here", budget_s=2.0, shapes=((32, 512, 512),))
    at = {kernel.level: kernel for kernel in table.kernels}
    assert at[0.99].high < at[0.5].low


def test_what_is_timed_gives_the_dense_layers_outputs():
    for one in [*breakeven._sparse([(3, 8, 16)]), *breakeven._int8([(3, 8, 16)])]:
        expected = one.dense()
        assert one.other().shape == expected.shape
        assert (one.other() - expected).abs().max() <= one.tolerance * expected.abs().max()
