"""Generated graphs: sizes as asked for, laws as told, the same for the same seed; and the published table."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import DamagedData, UnknownName, UsageError
from gnomon.zoo.graph import generate, published
from gnomon.zoo.graph.sample import fan_out


@given(st.integers(1, 60), st.integers(0, 300), st.integers(0, 99))
def test_sizes_are_as_asked_for_and_a_seed_gives_one_graph(vertices, edges, seed):
    for law in (generate.power_law, generate.uniform):
        one, same = law(vertices, edges, seed), law(vertices, edges, seed)
        assert (one.vertices, one.edges) == (vertices, edges)
        assert np.array_equal(one.sources, same.sources)
        assert np.array_equal(one.offsets, same.offsets)


def test_a_power_law_has_its_exponent_and_its_largest_degree():
    graph = generate.power_law(20_000, 219_473, seed=0)
    assert 900 < graph.degrees.max() < 1_150
    # log of the count of vertices above k falls by exponent - 1 for each log k, away from both ends
    k = np.array([20, 40, 80, 160])
    above = np.array([(graph.degrees > x).sum() for x in k])
    slope = np.polyfit(np.log(k), np.log(above), 1)[0]
    assert slope == pytest.approx(1 - 2.45, abs=0.2)


def test_degrees_of_a_uniform_graph_spread_like_poisson_numbers():
    degrees = generate.uniform(20_000, 200_000, seed=0).degrees
    assert degrees.var() == pytest.approx(degrees.mean(), rel=0.05)


def test_four_fifths_of_the_neighbours_are_in_the_community():
    graph, community = generate.communities(2_000, 20, inside=8, outside=2, seed=0)
    assert (graph.degrees == 10).all()
    assert np.bincount(community).tolist() == [100] * 20
    inside = (community[graph.sources] == community[graph.targets]).mean()
    assert inside == pytest.approx(0.8 + 0.2 / 20, abs=0.01)


def test_a_batch_has_no_edge_between_its_graphs():
    graph = generate.batch(50, 20.0, 190.0, seed=1)
    assert graph.vertices == pytest.approx(50 * 20, rel=0.15)
    assert graph.edges == pytest.approx(50 * 190, rel=0.01)
    reach = np.maximum.accumulate(np.maximum(graph.sources, graph.targets))
    apart = [
        v
        for v in range(graph.vertices - 1)
        if reach[graph.offsets[v + 1] - 1] <= v < graph.sources[graph.offsets[v + 1] :].min()
    ]
    assert len(apart) >= 45  # almost every graph's last vertex ends what its edges reach


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: generate.uniform(0, 3, 0), "no graph has 0 vertices and 3 edges"),
        (lambda: generate.power_law(-1, 0, 0), "no graph has -1 vertices"),
        (lambda: generate.power_law(5, 5, 0, exponent=1.0), "an exponent above 1; got 1.0"),
        (lambda: generate.communities(10, 3, 1, 1, 0), "divides 10 vertices; got 3"),
        (lambda: fan_out(generate.uniform(3, 3, 0), 0, 0), "at least 1 neighbour; got 0"),
    ],
)
def test_what_cannot_be_generated_says_why(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@given(st.integers(1, 9), st.integers(0, 99))
def test_a_fan_out_keeps_at_most_k_edges_of_a_vertex_and_invents_none(k, seed):
    graph = generate.power_law(30, 150, seed, largest=20)
    sampled = fan_out(graph, k, seed)
    assert np.array_equal(sampled.degrees, np.minimum(graph.degrees, k))
    for vertex in range(30):
        all_in = graph.sources[graph.offsets[vertex] : graph.offsets[vertex + 1]].tolist()
        for source in sampled.sources[sampled.offsets[vertex] : sampled.offsets[vertex + 1]].tolist():
            all_in.remove(source)  # without replacement: each edge once


def test_every_neighbour_is_as_likely_to_be_sampled():
    graph = generate.uniform(1, 10, seed=0)
    graph = type(graph).of_edges(11, np.stack([np.arange(1, 11), np.zeros(10, dtype=np.int64)]))
    drawn = np.concatenate([fan_out(graph, 3, seed).sources for seed in range(1_000)])
    assert np.bincount(drawn, minlength=11)[1:] == pytest.approx(np.full(10, 300), abs=75)  # five deviations


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_published_graphs_are_generated_at_their_sizes_or_say_how_much_smaller(name):
    size = published.published(name)
    smaller = published.generated(name, 0, vertices=50, degree=4)
    assert smaller.features == size.features
    assert smaller.graph.vertices == pytest.approx(size.vertices / 50, rel=0.2)
    assert smaller.graph.edges / smaller.graph.vertices == pytest.approx(size.edges / size.vertices / 4, rel=0.25)
    assert "50" in smaller.note or f"of {size.graphs} graphs" in smaller.note
    assert "mean degree / 4" in smaller.note


def test_a_graph_of_the_published_size_says_so():
    sample = published.generated("cora", 0)
    assert (sample.graph.vertices, sample.graph.edges, sample.note) == (2708, 10556, "published size")
    assert published.generated("cora", 0, law="uniform").graph.degrees.max() < 20 < sample.graph.degrees.max()


def test_an_unknown_graph_gets_the_nearest_name():
    with pytest.raises(UnknownName, match=r"no published graph is called 'Coral'\. Did you mean 'cora'"):
        published.generated("Coral", 0)


@pytest.mark.skipif("GNOMON_DATA" not in os.environ, reason="GNOMON_DATA names no folder of data")
def test_the_real_cora_has_the_published_size():
    sample, size = published.cora(published.cora_file(Path(os.environ["GNOMON_DATA"]))), published.published("cora")
    found = (sample.graph.vertices, sample.graph.edges, sample.features, sample.classes)
    assert found == (size.vertices, size.edges, size.features, size.classes)
    assert sample.origin == "file"


def test_a_file_that_is_no_cora_is_damaged(tmp_path):
    np.savez(tmp_path / "cora.npz", edge_index=np.zeros((2, 1), dtype=int))
    with pytest.raises(DamagedData, match="wanted Cora as arrays edge_index, feature_shape and label"):
        published.cora(tmp_path / "cora.npz")
