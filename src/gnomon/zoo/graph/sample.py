"""Sampling of neighbours, as GraphSAGE does it (Hamilton et al. 2017, arXiv:1706.02216): at most k edges per vertex."""

import numpy as np

from gnomon.core.errors import UsageError
from gnomon.zoo.graph.graph import Graph


def fan_out(graph: Graph, k: int, seed: int) -> Graph:
    """Of the edges into each vertex k at random without replacement, or all where there are no more.

    Raises UsageError for k < 1.
    """
    if k < 1:
        raise UsageError(f"a fan-out takes at least 1 neighbour; got {k}")
    rng = np.random.default_rng(seed)
    drawn = np.lexsort((rng.random(graph.edges), graph.targets))  # a random order within each vertex
    place = np.arange(graph.edges) - graph.offsets[graph.targets]
    kept = np.sort(drawn[place < k])
    return Graph.of_edges(graph.vertices, np.stack([graph.sources[kept], graph.targets[kept]]))
