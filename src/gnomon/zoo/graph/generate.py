"""Graphs drawn from a degree law: power law, uniform, communities, batches of small graphs. All are seeded.

An edge's destination and source are drawn independently, so edges can double; a graph may then hold an edge twice.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnomon.core.errors import UsageError
from gnomon.zoo.graph.graph import Graph, Ids, joined


def power_law(vertices: int, edges: int, seed: int, *, exponent: float = 2.45, largest: int = 1000) -> Graph:
    """Degrees fall as k^-exponent up to `largest`; sources are drawn in proportion to their degree.

    The expected degrees are the quantiles of the law, scaled to the number of edges, in random order: the name of a
    vertex says nothing about its degree. Raises UsageError for an exponent of 1 or less.
    """
    _check(vertices, edges)
    if exponent <= 1:
        raise UsageError(f"a power law of degrees has an exponent above 1; got {exponent}")
    if not vertices:
        return joined([])
    rng = np.random.default_rng(seed)
    quantile = (np.arange(vertices) + 0.5) / vertices
    tail = float(max(largest, 1)) ** (1 - exponent)
    weight = (tail + quantile * (1 - tail)) ** (1 / (1 - exponent))  # from `largest` down to 1
    weight = _scaled(weight, edges, largest)[rng.permutation(vertices)]
    return Graph.of_edges(vertices, np.stack([_drawn(weight, edges, rng), _drawn(weight, edges, rng)]))


def uniform(vertices: int, edges: int, seed: int) -> Graph:
    """Every pair of vertices is as likely (Erdős and Rényi's law)."""
    _check(vertices, edges)
    return Graph.of_edges(vertices, np.random.default_rng(seed).integers(0, max(vertices, 1), (2, edges)))


def communities(vertices: int, count: int, inside: int, outside: int, seed: int) -> tuple[Graph, Ids]:
    """Every vertex has `inside` neighbours in its community and `outside` anywhere. Also returns each one's community.

    Names are random: a vertex's number says nothing of its community. Raises UsageError when communities have no
    equal sizes.
    """
    _check(vertices, vertices * (inside + outside))
    if count < 1 or vertices % count:
        raise UsageError(f"wanted a number of communities that divides {vertices} vertices; got {count}")
    rng = np.random.default_rng(seed)
    size = vertices // count
    near = np.repeat(np.arange(vertices), inside)
    near_sources = near // max(size, 1) * size + rng.integers(0, max(size, 1), len(near))
    far = np.repeat(np.arange(vertices), outside)
    far_sources = rng.integers(0, max(vertices, 1), len(far))
    pairs = np.stack([np.concatenate([near_sources, far_sources]), np.concatenate([near, far])])
    name = rng.permutation(vertices)
    community = np.empty(vertices, dtype=np.int64)
    community[name] = np.arange(vertices) // max(size, 1)
    return Graph.of_edges(vertices, name[pairs]), community


def batch(graphs: int, mean_vertices: float, mean_edges: float, seed: int) -> Graph:
    """Small graphs side by side: sizes spread by a third around their mean, edges in proportion to pairs of vertices.

    mean_edges: directed edges of one graph.
    """
    rng = np.random.default_rng(seed)
    sizes = np.maximum(2, rng.normal(mean_vertices, mean_vertices / 3, graphs).round().astype(int))
    pairs = sizes.astype(float) ** 2
    share = mean_edges * graphs * pairs / max(pairs.sum(), 1.0)
    return joined([
        uniform(int(size), round(edges), seed=int(rng.integers(2**31)))
        for size, edges in zip(sizes, share, strict=True)
    ])  # fmt: skip


def _scaled(weight: NDArray[np.float64], edges: int, largest: int) -> NDArray[np.float64]:
    """Expected degrees that sum to `edges`, none above `largest` while that can hold."""
    if not edges or edges > largest * len(weight):
        return weight * (edges / weight.sum())
    for _ in range(60):  # what is cut off the largest goes to the others, until nothing is cut
        weight = np.minimum(weight * (edges / weight.sum()), largest)
    return weight


def _drawn(weight: NDArray[np.float64], count: int, rng: np.random.Generator) -> Any:
    """Ids in proportion to their weight, by inverting the cumulative sum."""
    total = np.cumsum(weight)
    return np.minimum(np.searchsorted(total, rng.random(count) * total[-1], side="right"), len(weight) - 1)


def _check(vertices: int, edges: int) -> None:
    if vertices < 0 or edges < 0 or (edges and not vertices):
        raise UsageError(f"no graph has {vertices} vertices and {edges} edges")
