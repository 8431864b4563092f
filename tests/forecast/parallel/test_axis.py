import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from gnomon.forecast.parallel.axis import Axis, agree, local, viewed

factors = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4)


def labels(shape, axis: Axis, parts: int) -> np.ndarray:
    """Which part each element of the tensor is in, written down from the definition."""
    index = np.arange(shape[axis.dim])
    inner = shape[axis.dim] // (axis.outer * axis.extent)
    part = (index // inner) % axis.extent // (axis.extent // parts)
    return np.broadcast_to(part.reshape([-1 if i == axis.dim else 1 for i in range(len(shape))]), shape)


@given(factors, st.data())
def test_a_view_keeps_every_element_in_its_part(shape, data):
    parts = data.draw(st.sampled_from([2, 3]))
    dims = [i for i, n in enumerate(shape) if n % parts == 0]
    assume(dims)
    dim = data.draw(st.sampled_from(dims))
    axis = Axis(dim, 1, shape[dim])
    merged = data.draw(st.integers(1, len(shape)))
    new = [*shape[: merged - 1], int(np.prod(shape[merged - 1 :]))]  # merge a tail
    if data.draw(st.booleans()):
        new = [n for size in new for n in ((size // 2, 2) if size % 2 == 0 else (size,))]  # and take some apart
    found = viewed(axis, shape, new, parts)
    if found is not None:
        assert local(new, found, parts)[found.dim] * parts == new[found.dim]
        before = labels(shape, axis, parts).reshape(new)
        np.testing.assert_array_equal(before, labels(new, found, parts))


def test_columns_viewed_as_heads_are_divided_by_heads():
    assert viewed(Axis(2, 1, 64), (2, 16, 64), (2, 16, 4, 16), 4) == Axis(2, 1, 4)
    assert viewed(Axis(2, 1, 64), (2, 16, 64), (2, 16, 4, 16), 8) is None


def test_heads_are_found_again_after_they_were_merged_with_the_batch():
    merged = viewed(Axis(1, 1, 4), (2, 4, 16, 16), (8, 16, 16), 4)
    assert merged == Axis(0, 2, 4)
    assert viewed(merged, (8, 16, 16), (2, 4, 16, 16), 4) == Axis(1, 1, 4)


def test_axes_agree_only_when_they_cut_the_same_blocks():
    assert agree([Axis(1, 1, 64), Axis(1, 1, 4)]) == Axis(1, 1, 4)
    assert agree([Axis(1, 1, 4), Axis(1, 2, 4)]) is None
    assert agree([Axis(1, 1, 4), Axis(0, 1, 4)]) is None
