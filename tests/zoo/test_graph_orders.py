"""Orders of vertices: each is a permutation and brings near in memory what it says it brings near."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, reverse_cuthill_mckee

from gnomon.zoo.graph import order
from gnomon.zoo.graph.generate import communities, power_law, uniform
from gnomon.zoo.graph.graph import Graph


def bandwidth(graph):
    return int(np.abs(graph.sources - graph.targets).max(initial=0))


def path(n, seed):
    """A line of vertices with shuffled names."""
    name = np.random.default_rng(seed).permutation(n)
    return Graph.of_edges(n, np.stack([name[:-1], name[1:]]))


@pytest.mark.parametrize("name", order.ORDERS)
@given(st.integers(0, 25), st.integers(0, 99))
def test_an_order_names_every_vertex_once(name, vertices, seed):
    graph = power_law(vertices, 3 * vertices, seed, largest=9)
    assert sorted(order.ORDERS[name](graph).tolist()) == list(range(vertices))


@given(st.integers(2, 40), st.integers(0, 99))
def test_a_line_is_found_again(n, seed):
    for find in (order.breadth_first, order.reverse_cuthill_mckee):
        graph = path(n, seed)
        assert bandwidth(graph.renamed(find(graph))) == 1


@given(st.integers(0, 99))
def test_levels_are_those_of_scipy(seed):
    graph = uniform(40, 60, seed).both_ways()
    matrix = csr_array((np.ones(graph.edges), graph.sources, graph.offsets), shape=(40, 40))
    found = order.breadth_first(graph)
    first = found[0]
    _, before = breadth_first_order(matrix, first)
    depth = {int(first): 0}
    for vertex in breadth_first_order(matrix, first, return_predecessors=False)[1:]:
        depth[int(vertex)] = depth[int(before[vertex])] + 1
    depths = [depth[v] for v in found.tolist()[: len(depth)]]
    assert depths == sorted(depths)


def test_reverse_cuthill_mckee_makes_bands_as_narrow_as_scipy_does():
    for seed in range(5):
        graph = uniform(300, 400, seed).both_ways()
        matrix = csr_array((np.ones(graph.edges), graph.sources, graph.offsets), shape=(300, 300))
        theirs = bandwidth(graph.renamed(reverse_cuthill_mckee(matrix, symmetric_mode=True).astype(np.int64)))
        ours = bandwidth(graph.renamed(order.reverse_cuthill_mckee(graph)))
        assert ours <= 1.25 * theirs  # ties are broken in another way


def test_neighbours_of_a_vertex_follow_by_name_or_by_rising_degree_and_then_all_is_reversed():
    graph = Graph.of_edges(8, [[0, 1, 1, 1, 2, 2, 3], [1, 2, 3, 4, 5, 6, 7]])  # 2 has three neighbours, 3 two, 4 one
    assert order.breadth_first(graph).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert order.reverse_cuthill_mckee(graph)[::-1].tolist() == [0, 1, 4, 3, 2, 7, 5, 6]


def test_the_most_used_rows_come_first():
    graph = power_law(200, 2_000, seed=0, largest=100)
    uses = np.bincount(graph.sources, minlength=200)[order.by_degree(graph)]
    assert (np.diff(uses) <= 0).all()


def test_communities_are_found_and_put_together():
    graph, community = communities(2_000, 20, inside=8, outside=2, seed=0)
    found = community[order.by_community(graph)]
    assert (np.diff(found) != 0).sum() <= 25  # 19 borders when every community is found whole


def test_a_shuffle_is_the_seeds():
    graph = uniform(50, 10, seed=0)
    assert np.array_equal(order.shuffled(graph, 3), order.shuffled(graph, 3))
    assert not np.array_equal(order.shuffled(graph, 3), order.shuffled(graph, 4))
