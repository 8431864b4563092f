import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.spec.shapes import unify

NAMES = st.sampled_from("BCHW")


def test_a_picture_is_solved():
    assert unify(["B", 3, "H", "W"], [8, 3, 224, 224], {}) == {"B": 8, "H": 224, "W": 224}


@pytest.mark.parametrize(
    ("wanted", "found", "dims", "message"),
    [
        (["B", 3, "H", "W"], [8, 1, 28, 28], {}, "axis 1: wanted 3, got 1"),
        (["B", 3, "S", "S"], [8, 3, 224, 225], {}, "axis 3: wanted S = 224, got 225"),
        (["B", "L"], [8, 64], {"L": 128}, "axis 1: wanted L = 128, got 64"),
        (["B"], [1, 2], {}, r"wanted 1 axes \[B\], got 2 axes \[1, 2\]"),
        (["B"], ["N"], {}, "axis 0: neither B nor N has a size"),
        (["B", "N"], ["N", 3], {"B": 2}, "axis 1: wanted N = 2, got 3"),
    ],
)
def test_what_does_not_fit_names_the_axis_and_the_dimension(wanted, found, dims, message):
    with pytest.raises(ValueError, match=message):
        unify(wanted, found, dims)


@given(st.lists(st.integers(1, 9) | NAMES, max_size=5), st.dictionaries(NAMES, st.integers(1, 9)))
def test_what_is_solved_makes_the_shapes_equal_and_keeps_what_was_known(shape, sizes):
    actual = [sizes.get(a, 7) if isinstance(a, str) else a for a in shape]
    solved = unify(shape, actual, {})
    assert [solved.get(a, a) for a in shape] == actual
    assert unify(actual, shape, {}) == solved
    assert unify(shape, actual, solved) == solved
