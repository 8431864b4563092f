from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.measure.phases.balance import imbalance, reductions

degrees = st.lists(st.integers(0, 50), min_size=1, max_size=60)


@given(degrees, st.integers(1, 8))
def test_the_busiest_worker_has_the_mean_or_more_and_at_most_all(known, workers):
    for found in imbalance(known, workers):
        assert 1 - 1e-9 <= found <= workers + 1e-9


@given(degrees, st.integers(1, 8))
def test_cuts_by_edges_miss_the_even_share_by_at_most_one_vertex(known, workers):
    total = sum(known)
    if total:
        assert imbalance(known, workers).by_edges <= 1 + workers * max(known) / total + 1e-9


@given(degrees, st.integers(1, 8))
def test_cuts_by_vertices_are_those_of_loops(known, workers):
    cuts = [round(i * len(known) / workers) for i in range(workers + 1)]
    loads = [sum(known[a:b]) for a, b in pairwise(cuts)]
    expected = max(loads) / (sum(known) / workers) if sum(known) else 1
    assert imbalance(known, workers).by_vertices == pytest.approx(expected)


def test_equal_degrees_are_even_both_ways():
    assert imbalance([7] * 64, 16) == (1, 1)


def test_hubs_in_one_place_are_uneven_by_vertices_and_even_by_edges():
    found = imbalance([100] * 10 + [1] * 990, 4)
    assert found.by_vertices > 2.4
    assert found.by_edges < 1.06


def test_no_edges_are_even():
    assert imbalance([0, 0, 0], 2) == imbalance([], 3) == (1, 1)


@given(degrees)
def test_a_scatter_adds_once_for_every_edge_and_conflicts_where_two_meet(known):
    found = reductions(known)
    edges = [vertex for vertex, degree in enumerate(known) for _ in range(degree)]
    assert found.atomic == len(edges)
    assert found.conflicts == sum(edges.count(vertex) > 1 for vertex in edges)
    assert found.largest == max(known)


def test_a_graph_without_vertices_reduces_nothing():
    assert reductions(np.zeros(0, dtype=int)) == (0, 0, 0)


@pytest.mark.parametrize("check", [lambda d: imbalance(d, 2), reductions])
def test_a_negative_degree_is_refused_by_name(check):
    with pytest.raises(UsageError, match="vertex 1 has the degree -3; wanted 0 or more"):
        check([2, -3, 1])


def test_a_worker_is_needed():
    with pytest.raises(UsageError, match="at least 1 worker; got 0"):
        imbalance([1], 0)
