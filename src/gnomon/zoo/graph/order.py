"""Orders of vertices: which neighbours are near each other in memory. Each returns old names in their new order, [V].

Directions of edges do not matter here. None needs torch.
"""

from collections.abc import Callable

import numpy as np

from gnomon.zoo.graph.graph import Graph, Ids

_ROUNDS = 12  # label propagation settles in a few rounds on graphs that have communities


def shuffled(graph: Graph, seed: int = 0) -> Ids:
    """No order at all."""
    return np.random.default_rng(seed).permutation(graph.vertices)


def by_degree(graph: Graph) -> Ids:
    """Most used vertices first: those that are source of most edges."""
    uses = np.bincount(graph.sources, minlength=graph.vertices)
    return np.argsort(-uses, kind="stable")


def breadth_first(graph: Graph) -> Ids:
    """Level by level from the vertex of the lowest degree of each component, neighbours of a vertex by name."""
    return _levels(graph, by_degree_within=False)


def reverse_cuthill_mckee(graph: Graph) -> Ids:
    """Cuthill & McKee 1969, reversed as George 1971: breadth first, the neighbours of a vertex by rising degree."""
    return _levels(graph, by_degree_within=True)[::-1].copy()


def by_community(graph: Graph, seed: int = 0) -> Ids:
    """Vertices of one community together; communities are found by label propagation (Raghavan et al. 2007).

    Half of the vertices, drawn anew, take the label that most of their neighbours have in each round; of equally
    frequent ones the lowest. Within a community the old order stays.
    """
    rng = np.random.default_rng(seed)
    label = np.arange(graph.vertices)
    both = graph.both_ways()
    for _ in range(2 * _ROUNDS):
        wanted = _commonest(both, label)
        moves = (wanted != label) & (rng.random(graph.vertices) < 0.5)
        if not moves.any() and (wanted == label).all():
            break
        label = np.where(moves, wanted, label)
    return np.argsort(label, kind="stable")


ORDERS: dict[str, Callable[[Graph], Ids]] = {
    "random": shuffled,
    "degree": by_degree,
    "breadth-first": breadth_first,
    "reverse Cuthill-McKee": reverse_cuthill_mckee,
    "community": by_community,
}


def _levels(graph: Graph, by_degree_within: bool) -> Ids:
    both = graph.both_ways()
    degree, offsets, neighbours = both.degrees, both.offsets, both.sources
    if by_degree_within:  # sort every vertex's neighbours once, rather than each level's
        neighbours = neighbours[np.lexsort((neighbours, degree[neighbours], both.targets))]
    seen = np.zeros(graph.vertices, dtype=bool)
    found: list[Ids] = []
    for start in np.argsort(degree, kind="stable"):
        if seen[start]:
            continue
        seen[start] = True
        level = np.array([start])
        while len(level):
            found.append(level)
            counts = degree[level]
            first = np.repeat(offsets[level] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
            reached = neighbours[first + np.arange(counts.sum())]
            fresh = reached[~seen[reached]]
            _, where = np.unique(fresh, return_index=True)
            level = fresh[np.sort(where)]  # each once, where it was reached first
            seen[level] = True
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _commonest(graph: Graph, label: Ids) -> Ids:
    """[V], the label that most neighbours of each vertex have; its own where there are no neighbours."""
    span = max(graph.vertices, 1)
    keys, counts = np.unique(graph.targets * span + label[graph.sources], return_counts=True)
    vertex, candidate = np.divmod(keys, span)
    best = np.lexsort((-candidate, counts, vertex))  # the last of each vertex has most votes, then the lowest label
    last = np.flatnonzero(np.diff(vertex[best], append=-1))
    wanted = label.copy()
    wanted[vertex[best][last]] = candidate[best][last]
    return wanted
