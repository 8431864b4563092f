"""Sums over the neighbours of every vertex, in the ways that libraries do them.

Axes: V vertices, E edges (by destination, as `Graph` stores them), F features, K heads. All return the same numbers up
to rounding; which is fast depends on the graph, the width and the machine.
"""

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from gnomon.core.errors import UsageError, did_you_mean
from gnomon.zoo.graph.graph import Graph

_MOST_PADDING = 16  # slots per edge from which a padded layout wastes more than it can gain
_TILE = 64  # features: one tile of a row is four cache lines


def csr_matrix(offsets: Tensor, source_E: Tensor, weight_E: Tensor, columns: int) -> Tensor:
    """A sparse matrix over the arrays as they are, without a copy; `Graph` has checked what it wants to hold."""
    _beta_was_told()
    shape = (len(offsets) - 1, columns)
    return torch.sparse_csr_tensor(offsets, source_E, weight_E, shape, check_invariants=False)


@functools.cache
def _beta_was_told() -> None:
    """torch says once per process that CSR is in beta; it is said here, where nobody hears it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), [], (0, 0))


class Neighbours(ABC):
    """A graph made ready for sums. weight_E: a fixed weight of each edge, in the dtype of the features."""

    name: str

    def __init__(self, graph: Graph, weight_E: Tensor) -> None:
        self.graph, self.weight_E = graph, weight_E
        self.vertices = graph.vertices
        self.source_E, self.target_E = torch.from_numpy(graph.sources), torch.from_numpy(graph.targets)
        self.offsets = torch.from_numpy(graph.offsets)

    @classmethod
    def why_not(cls, graph: Graph) -> str | None:
        """The reason why a graph cannot be had in this layout, None when it can."""
        return None

    @abstractmethod
    def sum(self, x_VF: Tensor, weight_E: Tensor | None = None) -> Tensor:
        """[V, F], the weighted sum of what flows into each vertex; zero where nothing does. Default: fixed weights."""

    def largest(self, x_VF: Tensor) -> Tensor:
        """[V, F], the largest of each feature over the neighbours; zero where there are none."""
        index = self.target_E[:, None].expand(-1, x_VF.shape[1])
        return torch.zeros_like(x_VF).scatter_reduce_(0, index, x_VF[self.source_E], "amax", include_self=False)

    def softmax(self, score_EK: Tensor) -> Tensor:
        """[E, K], weights of the edges into each vertex that are positive and sum to 1 for each head."""
        index = self.target_E[:, None].expand_as(score_EK)
        zeros_VK = score_EK.new_zeros(self.vertices, score_EK.shape[1])
        top_VK = zeros_VK.scatter_reduce(0, index, score_EK, "amax", include_self=False)
        power_EK = (score_EK - top_VK[self.target_E]).exp()
        return power_EK / zeros_VK.index_add(0, self.target_E, power_EK)[self.target_E]

    def _weights(self, weight_E: Tensor | None) -> Tensor:
        return self.weight_E if weight_E is None else weight_E


class Csr(Neighbours):
    """A sparse matrix times a dense one, row by row: every output row is written once, by one worker."""

    name = "csr"

    def sum(self, x_VF: Tensor, weight_E: Tensor | None = None) -> Tensor:
        return csr_matrix(self.offsets, self.source_E, self._weights(weight_E), self.vertices) @ x_VF


class Scatter(Neighbours):
    """Gather a message for every edge, then add each to its destination: what plain message passing does.

    shuffle: the edges in random order, as an edge list that nobody sorted.
    """

    name = "scatter"

    def __init__(self, graph: Graph, weight_E: Tensor, shuffle: int | None = None) -> None:
        super().__init__(graph, weight_E)
        if shuffle is not None:
            order = torch.randperm(graph.edges, generator=torch.Generator().manual_seed(shuffle))
            self.source_E, self.target_E, self.weight_E = self.source_E[order], self.target_E[order], weight_E[order]

    def sum(self, x_VF: Tensor, weight_E: Tensor | None = None) -> Tensor:
        message_EF = x_VF[self.source_E] * self._weights(weight_E)[:, None]
        return torch.zeros_like(x_VF).index_add_(0, self.target_E, message_EF)


class Padded(Neighbours):
    """ELLPACK: as many slots for every vertex as the largest degree; slot by slot over all vertices."""

    name = "padded"

    def __init__(self, graph: Graph, weight_E: Tensor) -> None:
        super().__init__(graph, weight_E)
        reason = self.why_not(graph)
        if reason is not None:
            raise UsageError(reason)
        width = int(graph.degrees.max(initial=0))
        self.slot_E = torch.arange(graph.edges) - self.offsets[self.target_E]
        self.source_SV = torch.zeros(width, self.vertices, dtype=torch.int64)
        self.source_SV[self.slot_E, self.target_E] = self.source_E

    @classmethod
    def why_not(cls, graph: Graph) -> str | None:
        slots = int(graph.degrees.max(initial=0)) * graph.vertices
        if slots <= _MOST_PADDING * max(graph.edges, 1):
            return None
        return (
            f"a padded layout needs {slots} slots for {graph.edges} edges, {slots / graph.edges:.0f} for each, because "
            f"one vertex has {graph.degrees.max()}. Use csr"
        )

    def sum(self, x_VF: Tensor, weight_E: Tensor | None = None) -> Tensor:
        weight_SV = x_VF.new_zeros(self.source_SV.shape)
        weight_SV[self.slot_E, self.target_E] = self._weights(weight_E)
        total_VF = torch.zeros_like(x_VF)
        for source_V, weight_V in zip(self.source_SV, weight_SV, strict=True):
            total_VF.addcmul_(x_VF[source_V], weight_V[:, None])
        return total_VF


class Tiled(Csr):
    """CSR over tiles of a few features at a time, so that more neighbours' tiles fit in a cache."""

    name = "tiled"

    def sum(self, x_VF: Tensor, weight_E: Tensor | None = None) -> Tensor:
        if x_VF.shape[1] <= _TILE:
            return super().sum(x_VF, weight_E)
        return torch.cat([Csr.sum(self, tile.contiguous(), weight_E) for tile in x_VF.split(_TILE, dim=1)], dim=1)


IMPLEMENTATIONS: Mapping[str, type[Neighbours]] = {one.name: one for one in (Csr, Scatter, Padded, Tiled)}


def implementation(name: str) -> type[Neighbours]:
    """Raises UsageError with the nearest name."""
    if name not in IMPLEMENTATIONS:
        near, known = did_you_mean(name, IMPLEMENTATIONS), ", ".join(IMPLEMENTATIONS)
        raise UsageError(f"neighbours are not summed by {name!r}.{near} Known: {known}")
    return IMPLEMENTATIONS[name]
