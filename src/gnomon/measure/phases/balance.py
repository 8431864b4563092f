"""How evenly the edges of a graph fall on workers, and how many additions meet at one vertex."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnomon.core.errors import UsageError


class Imbalance(NamedTuple):
    """Most edges of a worker over the mean: 1 is even, and a parallel aggregation takes that much longer."""

    by_vertices: float
    by_edges: float


class Reductions(NamedTuple):
    """Additions into rows that are shared. atomic: those of a scatter, one per edge. conflicts: those of them that meet
    another one at their vertex. largest: edges into one vertex, a chain that nothing shortens. A reduction by
    destination has none of them.
    """

    atomic: int
    conflicts: int
    largest: int


def imbalance(degrees: Any, workers: int) -> Imbalance:
    """Contiguous vertices for each worker: as many vertices each, or as many edges as whole vertices allow.

    degrees: [V], edges into each vertex. A graph without edges is even. Raises UsageError for workers < 1 and for a
    degree below 0, naming its vertex.
    """
    known = _checked(degrees)
    if workers < 1:
        raise UsageError(f"wanted at least 1 worker; got {workers}")
    total = int(known.sum())
    if total == 0:
        return Imbalance(1.0, 1.0)
    ends = np.concatenate([[0], np.cumsum(known)])
    by_vertices = np.round(np.arange(workers + 1) * len(known) / workers).astype(int)
    wanted = np.arange(workers + 1) * total / workers
    after = np.searchsorted(ends, wanted)
    before = np.maximum(after - 1, 0)
    by_edges = np.where(wanted - ends[before] <= ends[after] - wanted, before, after)  # the nearer end of a vertex
    by_edges[[0, -1]] = 0, len(known)
    mean = total / workers
    return Imbalance(*(float(np.diff(ends[cuts]).max() / mean) for cuts in (by_vertices, by_edges)))


def reductions(degrees: Any) -> Reductions:
    """What a scatter of one message per edge does. degrees: [V]. Raises UsageError for a degree below 0."""
    known = _checked(degrees)
    return Reductions(int(known.sum()), int(known[known > 1].sum()), int(known.max(initial=0)))


def _checked(degrees: Any) -> NDArray[np.int64]:
    known = np.asarray(degrees, dtype=np.int64)
    if (known < 0).any():
        vertex = int(np.argmax(known < 0))
        raise UsageError(f"vertex {vertex} has the degree {known[vertex]}; wanted 0 or more")
    return known
