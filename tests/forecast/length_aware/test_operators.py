"""Operators of a layer and the priorities that follow from their work."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.forecast.length_aware.operators import Layer, Operator, chain, encoder


def constant(value):
    return lambda length: value


@given(works=st.lists(st.integers(0, 100), min_size=1, max_size=8))
def test_priorities_of_a_chain_are_the_sums_of_what_follows(works):
    layer = chain({f"v{i}": constant(work) for i, work in enumerate(works)})
    assert layer.priorities(10.0) == {f"v{i}": sum(works[i:]) for i in range(len(works))}


@given(data=st.data(), count=st.integers(1, 7))
def test_priorities_are_the_longest_of_all_paths(data, count):
    works = [data.draw(st.integers(0, 20)) for _ in range(count)]
    edges = [(a, b) for a in range(count) for b in range(a + 1, count) if data.draw(st.booleans())]

    def longest(i):  # every path, one by one
        return works[i] + max((longest(b) for a, b in edges if a == i), default=0)

    backwards = tuple(Operator(f"v{i}", constant(works[i])) for i in reversed(range(count)))
    layer = Layer(backwards, tuple((f"v{a}", f"v{b}") for a, b in edges))
    assert layer.priorities(1.0) == {f"v{i}": longest(i) for i in range(count)}


def test_a_circle_is_refused():
    operators = tuple(Operator(name, constant(1)) for name in "abc")
    with pytest.raises(ValueError, match="edges lead in a circle through or into b, c"):
        Layer(operators, (("a", "b"), ("b", "c"), ("c", "b")))


def test_edges_to_nothing_and_equal_names_are_refused():
    one = Operator("a", constant(1))
    with pytest.raises(ValueError, match="edges name 'x', which is no operator; there are a"):
        Layer((one,), (("a", "x"),))
    with pytest.raises(ValueError, match="operators must have different names"):
        Layer((one, one), ())


@given(length=st.integers(1, 4000), top_k=st.integers(1, 64))
def test_an_encoder_has_the_work_of_its_products(length, top_k):
    d, f = 64, 256
    products = length * (4 * d * d + 2 * d * f)
    norms = 2 * 8 * length * d
    dense = encoder(d, f, None).work(length)
    assert math.isclose(dense, products + norms + 2 * length**2 * d)
    sparse = encoder(d, f, top_k, estimates=8).work(length)
    exact = 2 * length * min(length, top_k) * d
    assert math.isclose(sparse, products + norms + exact + length**2 * (d + 1) / 8)


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("ffn", -1), ("estimates", 0), ("top_k", 0)])
def test_an_encoder_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        encoder(**{name: value})
