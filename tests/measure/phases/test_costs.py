import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.measure.phases.costs import order_cost, order_for

sizes = st.integers(1, 10**6)


@given(sizes, sizes, st.integers(1, 5000), st.integers(1, 5000))
def test_the_order_flips_exactly_where_the_layer_gets_narrower(vertices, edges, features, hidden):
    found = order_for(vertices, edges, features, hidden, is_linear=True)
    expected = {True: "combine-first", False: "aggregate-first"}[features > hidden] if features != hidden else None
    assert found == expected


@given(sizes, sizes, st.integers(1, 5000), st.integers(1, 5000))
def test_what_is_not_linear_never_combines_first(vertices, edges, features, hidden):
    assert order_for(vertices, edges, features, hidden, is_linear=False) == "aggregate-first"


@given(st.integers(1, 30), st.integers(0, 60), st.integers(1, 9), st.integers(1, 9))
def test_multiply_adds_are_those_of_counting_loops(vertices, edges, features, hidden):
    dense = sum(1 for _ in range(vertices) for _ in range(features) for _ in range(hidden))
    sums = {width: sum(1 for _ in range(edges) for _ in range(width)) for width in (features, hidden)}
    assert order_cost(vertices, edges, features, hidden) == (sums[features] + dense, dense + sums[hidden])


def test_without_edges_no_order_is_cheaper():
    assert order_for(10, 0, 100, 1, is_linear=True) is None


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="no layer has 3 vertices, -1 edges, 4 features in and 5 out"):
        order_cost(3, -1, 4, 5)
