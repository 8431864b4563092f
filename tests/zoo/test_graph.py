import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.zoo.graph.graph import Graph, joined

pairs = st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30))
)


def of(n, edges):
    return Graph.of_edges(n, np.array(edges, dtype=np.int64).reshape(-1, 2).T)


def listed(graph):
    return sorted(zip(graph.sources.tolist(), graph.targets.tolist(), strict=True))


@given(pairs)
def test_every_edge_is_kept_by_its_destination(drawn):
    n, edges = drawn
    graph = of(n, edges)
    assert listed(graph) == sorted(edges)
    for vertex in range(n):
        into = graph.sources[graph.offsets[vertex] : graph.offsets[vertex + 1]].tolist()
        assert into == sorted(source for source, target in edges if target == vertex)
        assert graph.degrees[vertex] == len(into)


@given(pairs)
def test_every_vertex_gets_one_loop_and_adding_loops_again_changes_nothing(drawn):
    n, edges = drawn
    graph = of(n, [edge for i, edge in enumerate(edges) if edge[0] != edge[1] or edge not in edges[:i]])
    looped = graph.with_loops()
    assert [edge for edge in listed(looped) if edge[0] == edge[1]] == [(v, v) for v in range(n)]
    assert listed(looped.with_loops()) == listed(looped)
    assert [e for e in listed(looped) if e[0] != e[1]] == [e for e in listed(graph) if e[0] != e[1]]


@given(pairs)
def test_both_ways_joins_every_pair_once_in_each_direction(drawn):
    n, edges = drawn
    expected = {(a, b) for a, b in edges if a != b} | {(b, a) for a, b in edges if a != b}
    assert listed(of(n, edges).both_ways()) == sorted(expected)


@given(pairs, st.integers(0, 99))
def test_renaming_and_renaming_back_is_the_same_graph(drawn, seed):
    n, edges = drawn
    graph, order = of(n, edges), np.random.default_rng(seed).permutation(n)
    renamed = graph.renamed(order)
    assert {(order[a], order[b]) for a, b in listed(renamed)} == set(listed(graph))
    back = np.argsort(order)
    assert listed(renamed.renamed(back)) == listed(graph)


def test_graphs_are_joined_without_edges_between_them():
    one, two = of(3, [(0, 1), (2, 0)]), of(2, [(1, 1)])
    assert listed(joined([one, of(0, []), two])) == [(0, 1), (2, 0), (4, 4)]
    assert joined([]).vertices == joined([]).edges == 0


@pytest.mark.parametrize(
    ("vertices", "edges", "message"),
    [
        (3, [[0, 3], [1, 2]], "edge 1: its source is 3; the graph has 3 vertices, counted from 0"),
        (3, [[0, 1, 2], [1, 1, -4]], "edge 2: its destination is -4; the graph has 3 vertices"),
        (0, [[0], [0]], "edge 0: its source is 0; the graph has 0 vertices"),
        (3, [[0.0, 1.5], [1, 2]], "the ends of edges are whole numbers; got float64"),
        (3, [[0, 1]], r"edges are \[2, E\], sources above destinations; got the shape \(1, 2\)"),
        (-1, [[], []], "a graph has 0 vertices or more; got -1"),
    ],
)
def test_edges_that_cannot_be_are_refused_by_name(vertices, edges, message):
    with pytest.raises(UsageError, match=message):
        Graph.of_edges(vertices, edges)


@pytest.mark.parametrize(
    ("offsets", "sources", "message"),
    [
        ([0, 2, 1], [0], "vertex 1 has the degree -1; wanted 0 or more"),
        ([0, 1, 3], [0, 1], "the offsets promise 3 edges; there are 2"),
        ([1, 2], [0, 0], "starts at 0"),
        ([], [], "starts at 0"),
        ([0, 1], [5], "edge 0: its source is 5"),
    ],
)
def test_arrays_that_are_no_graph_are_refused(offsets, sources, message):
    with pytest.raises(UsageError, match=message):
        Graph(np.array(offsets, dtype=np.int64), np.array(sources, dtype=np.int64))


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [0, 1, 3]])
def test_an_order_names_each_vertex_once(order):
    with pytest.raises(UsageError, match="names each of the 3 vertices once"):
        of(3, [(0, 1)]).renamed(np.array(order))
