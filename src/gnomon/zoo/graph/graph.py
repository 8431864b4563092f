"""A directed graph as arrays, stored by destination: the edges into one vertex lie next to each other. No torch here.

Axes: V vertices, E edges.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnomon.core.errors import UsageError

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Graph:
    """offsets: [V + 1]; sources: [E]. What flows into vertex v comes from sources[offsets[v] : offsets[v + 1]].

    An edge that is there twice counts twice. Raises UsageError, naming the vertex or edge, when an offset goes back (a
    negative degree) or a source is no vertex.
    """

    offsets: Ids
    sources: Ids

    def __post_init__(self) -> None:
        if self.offsets.ndim != 1 or not len(self.offsets) or self.offsets[0] != 0:
            raise UsageError("a graph's offsets are one row of whole numbers that starts at 0")
        degrees = np.diff(self.offsets)
        if (degrees < 0).any():
            vertex = int(np.argmax(degrees < 0))
            raise UsageError(f"vertex {vertex} has the degree {degrees[vertex]}; wanted 0 or more")
        if self.offsets[-1] != len(self.sources):
            raise UsageError(f"the offsets promise {self.offsets[-1]} edges; there are {len(self.sources)}")
        _check_ids("source", self.sources, self.vertices)

    @classmethod
    def of_edges(cls, vertices: int, edge_index: Any) -> "Graph":
        """From pairs: edge_index is [2, E], sources above destinations, in any order.

        Raises UsageError for another shape, for numbers that are not whole and for ends that are no vertex.
        """
        pairs = np.asarray(edge_index)
        if pairs.ndim != 2 or pairs.shape[0] != 2:
            raise UsageError(f"edges are [2, E], sources above destinations; got the shape {pairs.shape}")
        if pairs.size and not np.issubdtype(pairs.dtype, np.integer):
            raise UsageError(f"the ends of edges are whole numbers; got {pairs.dtype}")
        if vertices < 0:
            raise UsageError(f"a graph has 0 vertices or more; got {vertices}")
        sources, targets = pairs.astype(np.int64)
        for what, ids in (("source", sources), ("destination", targets)):
            _check_ids(what, ids, vertices)
        order = np.lexsort((sources, targets))
        return cls(_offsets(np.bincount(targets, minlength=vertices)), sources[order])

    @property
    def vertices(self) -> int:
        return len(self.offsets) - 1

    @property
    def edges(self) -> int:
        return len(self.sources)

    @cached_property
    def degrees(self) -> Ids:
        """[V], edges into each vertex."""
        return np.diff(self.offsets)

    @cached_property
    def targets(self) -> Ids:
        """[E], never falling."""
        return np.repeat(np.arange(self.vertices), self.degrees)

    def with_loops(self) -> "Graph":
        """An edge from every vertex to itself; a vertex that has one gets no second."""
        looped = np.zeros(self.vertices, dtype=bool)
        looped[self.sources[self.sources == self.targets]] = True
        missing = np.flatnonzero(~looped)
        ends = [np.concatenate([side, missing]) for side in (self.sources, self.targets)]
        return Graph.of_edges(self.vertices, np.stack(ends))

    def both_ways(self) -> "Graph":
        """The graph with every edge's reverse, each pair of vertices joined once in each direction, no loops."""
        sources, targets = np.concatenate([[self.sources, self.targets], [self.targets, self.sources]], axis=1)
        keys = np.unique(targets * max(self.vertices, 1) + sources)
        targets, sources = np.divmod(keys, max(self.vertices, 1))
        return Graph.of_edges(self.vertices, np.stack([sources, targets])[:, sources != targets])

    def renamed(self, order: Ids) -> "Graph":
        """The same graph with its vertices in another order: vertex order[i] is called i from now on.

        Raises UsageError when `order` does not name each vertex once.
        """
        if not np.array_equal(np.sort(order), np.arange(self.vertices)):
            raise UsageError(f"an order names each of the {self.vertices} vertices once")
        name = np.empty(self.vertices, dtype=np.int64)
        name[order] = np.arange(self.vertices)
        return Graph.of_edges(self.vertices, np.stack([name[self.sources], name[self.targets]]))


def joined(graphs: list[Graph]) -> Graph:
    """Many graphs as one without edges between them (block-diagonal), as batches of small graphs are computed."""
    if not graphs:
        return Graph(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    starts = np.cumsum([0, *(graph.vertices for graph in graphs)])
    sources = [graph.sources + start for graph, start in zip(graphs, starts, strict=False)]
    return Graph(_offsets(np.concatenate([graph.degrees for graph in graphs])), np.concatenate(sources))


def _offsets(degrees: Ids) -> Ids:
    return np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)


def _check_ids(what: str, ids: Ids, vertices: int) -> None:
    wrong = (ids < 0) | (ids >= vertices)
    if wrong.any():
        edge = int(np.argmax(wrong))
        raise UsageError(f"edge {edge}: its {what} is {ids[edge]}; the graph has {vertices} vertices, counted from 0")
