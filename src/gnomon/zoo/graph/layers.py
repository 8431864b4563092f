"""Graph layers as their two phases, aggregation (over neighbours) and combination (of features): GCN (Kipf & Welling
2017, arXiv:1609.02907), GraphSAGE (Hamilton et al. 2017, arXiv:1706.02216), GIN (Xu et al. 2019, arXiv:1810.00826), GAT
(Veličković et al. 2018, arXiv:1710.10903).

Axes: V vertices, E edges, F features in, H features out, K heads. A layer's steps, run one after the other, are its
forward pass; where sum and transform are both linear they can change places, as A (X W) = (A X) W.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from gnomon.core.errors import UsageError
from gnomon.zoo.graph.graph import Graph
from gnomon.zoo.graph.neighbours import Csr, Neighbours, csr_matrix

Phase = Literal["aggregation", "combination"]
Order = Literal["aggregate-first", "combine-first"]
State = tuple[Tensor, ...]
Activation = Callable[[Tensor], Tensor]

_ITEM = 4  # bytes of a float32
_INDEX = 8  # bytes of an edge beside its row: the source's index and the weight, as the card of the method counts
_ROWS = 2048  # of one block of the fused layer: 128 features of them fit in a megabyte


class Work(NamedTuple):
    """What a step computes and moves by counting. gemm_flop: the part of matrix products in flop."""

    flop: int
    bytes_moved: int
    gemm_flop: int = 0

    def __add__(self, other: "Work") -> "Work":  # type: ignore[override]
        return Work(*(a + b for a, b in zip(self, other, strict=True)))


class Step(NamedTuple):
    phase: Phase
    run: Callable[[State], State]
    work: Work


def same(x: Tensor) -> Tensor:
    """No activation."""
    return x


class GraphLayer(nn.Module, ABC):
    """orders: those that are legal, the usual one first. is_linear: sum and transform may change places."""

    orders: tuple[Order, ...] = ("aggregate-first",)
    is_linear = False

    def __init__(self, in_features: int, out_features: int, activation: Activation) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise UsageError(f"a layer has at least 1 feature in and out; got {in_features} and {out_features}")
        self.in_features, self.out_features, self.activation = in_features, out_features, activation

    @staticmethod
    @abstractmethod
    def edges(graph: Graph, dtype: torch.dtype) -> tuple[Graph, Tensor]:
        """The edges that the layer sums over, with its own loops, and their fixed weights [E]."""

    @abstractmethod
    def steps(self, neighbours: Neighbours, order: Order) -> list[Step]:
        """Steps from (x_VF,) to (y_VH,) in a legal order."""

    def why_not(self, order: Order) -> str | None:
        """Why the layer has no such order, None when it has."""
        if order in self.orders:
            return None
        return f"{type(self).__name__} has no order {order!r}: {self.why_one_order}"

    why_one_order = ""

    def forward(self, x_VF: Tensor, neighbours: Neighbours, order: Order | None = None) -> Tensor:
        """[V, H]. Raises UsageError for an order that is not legal."""
        order = order or self.orders[0]
        reason = self.why_not(order)
        if reason is not None:
            raise UsageError(reason)
        state: State = (x_VF,)
        for step in self.steps(neighbours, order):
            state = step.run(state)
        return state[0]


class GCNLayer(GraphLayer):
    """act(D^-1/2 (A + I) D^-1/2 X W + b), D the degrees with loops."""

    orders = ("combine-first", "aggregate-first")
    is_linear = True

    def __init__(self, in_features: int, out_features: int, activation: Activation = same) -> None:
        super().__init__(in_features, out_features, activation)
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    @staticmethod
    def edges(graph: Graph, dtype: torch.dtype) -> tuple[Graph, Tensor]:
        looped = graph.with_loops()
        scale_V = torch.from_numpy(looped.degrees).to(dtype).rsqrt()
        return looped, scale_V[torch.from_numpy(looped.sources)] * scale_V[torch.from_numpy(looped.targets)]

    def aggregate(self, x_VF: Tensor, neighbours: Neighbours) -> Tensor:
        return neighbours.sum(x_VF)

    def combine(self, x_VF: Tensor) -> Tensor:
        return self.linear(x_VF)

    def finish(self, x_VH: Tensor) -> Tensor:
        return self.activation(x_VH + self.bias)

    def steps(self, neighbours: Neighbours, order: Order) -> list[Step]:
        n, f, h = neighbours.vertices, self.in_features, self.out_features
        if order == "aggregate-first":
            return [
                Step("aggregation", lambda s: (self.aggregate(s[0], neighbours),), _sum_work(neighbours.graph, f)),
                Step("combination", lambda s: (self.finish(self.combine(s[0])),), _gemm_work(n, f, h) + _bias(n, h)),
            ]
        return [
            Step("combination", lambda s: (self.combine(s[0]),), _gemm_work(n, f, h)),
            Step("aggregation", lambda s: (self.aggregate(s[0], neighbours),), _sum_work(neighbours.graph, h)),
            Step("combination", lambda s: (self.finish(s[0]),), _bias(n, h)),
        ]

    def fused(self, x_VF: Tensor, neighbours: Csr) -> Tensor:
        """Both phases for a block of vertices at a time: the sums [V, F] are never all written. Aggregate-first."""
        parts = []
        for begin in range(0, neighbours.vertices, _ROWS):
            ends = neighbours.offsets[begin : begin + _ROWS + 1]
            edges = slice(int(ends[0]), int(ends[-1]))
            weight_E, source_E = neighbours.weight_E[edges], neighbours.source_E[edges]
            block = csr_matrix(ends - ends[0], source_E, weight_E, neighbours.vertices)
            parts.append(self.finish(self.combine(block @ x_VF)))
        return torch.cat(parts) if parts else x_VF.new_zeros(0, self.out_features)


class SAGELayer(GraphLayer):
    """act(X W_own + m W + b), where m is the mean, or with `reduce='max'` the largest, over the neighbours."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: Activation = same,
        reduce: Literal["mean", "max"] = "mean",
    ) -> None:
        super().__init__(in_features, out_features, activation)
        if reduce not in ("mean", "max"):
            raise UsageError(f"GraphSAGE reduces by 'mean' or 'max'; got {reduce!r}")
        self.reduce = reduce
        self.is_linear = reduce == "mean"
        self.orders = ("combine-first", "aggregate-first") if self.is_linear else ("aggregate-first",)
        self.why_one_order = "a maximum over neighbours is not linear"
        self.own = nn.Linear(in_features, out_features, bias=False)
        self.others = nn.Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    @staticmethod
    def edges(graph: Graph, dtype: torch.dtype) -> tuple[Graph, Tensor]:
        degree_V = torch.from_numpy(graph.degrees).to(dtype)
        return graph, degree_V.clamp(min=1).reciprocal()[torch.from_numpy(graph.targets)]

    def aggregate(self, x_VF: Tensor, neighbours: Neighbours) -> Tensor:
        return neighbours.sum(x_VF) if self.is_linear else neighbours.largest(x_VF)

    def combine(self, own_VF: Tensor, others_VF: Tensor) -> Tensor:
        return self.finish(self.own(own_VF), self.others(others_VF))

    def finish(self, own_VH: Tensor, others_VH: Tensor) -> Tensor:
        return self.activation(own_VH + others_VH + self.bias)

    def steps(self, neighbours: Neighbours, order: Order) -> list[Step]:
        n, f, h = neighbours.vertices, self.in_features, self.out_features
        twice = _gemm_work(n, f, h) + _gemm_work(n, f, h)
        if order == "aggregate-first":
            return [
                Step("aggregation", lambda s: (s[0], self.aggregate(s[0], neighbours)), _sum_work(neighbours.graph, f)),
                Step("combination", lambda s: (self.combine(*s),), twice + _bias(n, h)),
            ]
        return [
            Step("combination", lambda s: (self.own(s[0]), self.others(s[0])), twice),
            Step("aggregation", lambda s: (s[0], self.aggregate(s[1], neighbours)), _sum_work(neighbours.graph, h)),
            Step("combination", lambda s: (self.finish(*s),), _bias(n, h)),
        ]


class GINLayer(GraphLayer):
    """act(MLP((1 + eps) X + A X)), a two-layer MLP with ReLU inside."""

    why_one_order = "its MLP is not linear"

    def __init__(self, in_features: int, out_features: int, activation: Activation = same, eps: float = 0.1) -> None:
        super().__init__(in_features, out_features, activation)
        self.eps = nn.Parameter(torch.tensor(eps))
        self.mlp = nn.Sequential(nn.Linear(in_features, out_features), nn.ReLU(), nn.Linear(out_features, out_features))

    @staticmethod
    def edges(graph: Graph, dtype: torch.dtype) -> tuple[Graph, Tensor]:
        return graph, torch.ones(graph.edges, dtype=dtype)

    def aggregate(self, x_VF: Tensor, neighbours: Neighbours) -> Tensor:
        return neighbours.sum(x_VF) + (1 + self.eps) * x_VF

    def combine(self, x_VF: Tensor) -> Tensor:
        return self.activation(self.mlp(x_VF))

    def steps(self, neighbours: Neighbours, order: Order) -> list[Step]:
        n, f, h = neighbours.vertices, self.in_features, self.out_features
        own = Work(2 * n * f, _ITEM * 2 * n * f)
        dense = _gemm_work(n, f, h) + _bias(n, h) + _gemm_work(n, h, h) + _bias(n, h)
        return [
            Step("aggregation", lambda s: (self.aggregate(s[0], neighbours),), _sum_work(neighbours.graph, f) + own),
            Step("combination", lambda s: (self.combine(s[0]),), dense),
        ]


class GATLayer(GraphLayer):
    """act(sum of softmax(LeakyReLU(a_s z_u + a_t z_v)) z_u + b) for each head, z = X W; heads side by side."""

    orders = ("combine-first",)
    why_one_order = "its weights of neighbours are computed from combined features"

    def __init__(self, in_features: int, out_features: int, activation: Activation = same, heads: int = 8) -> None:
        super().__init__(in_features, out_features, activation)
        if heads < 1 or out_features % heads:
            raise UsageError(f"heads share the features out evenly; got {heads} heads and {out_features} features")
        self.heads = heads
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.of_source = nn.Parameter(torch.randn(heads, out_features // heads) / out_features**0.5)
        self.of_target = nn.Parameter(torch.randn(heads, out_features // heads) / out_features**0.5)
        self.bias = nn.Parameter(torch.zeros(out_features))

    @staticmethod
    def edges(graph: Graph, dtype: torch.dtype) -> tuple[Graph, Tensor]:
        looped = graph.with_loops()
        return looped, torch.ones(looped.edges, dtype=dtype)

    def combine(self, x_VF: Tensor) -> State:
        """z [V, K, H / K], and the parts of the scores that belong to a vertex as source and as target, [V, K]."""
        z_VKH = self.linear(x_VF).unflatten(1, (self.heads, -1))
        return z_VKH, (z_VKH * self.of_source).sum(-1), (z_VKH * self.of_target).sum(-1)

    def weights(self, source_VK: Tensor, target_VK: Tensor, neighbours: Neighbours) -> Tensor:
        """[E, K], the attention over the neighbours of every vertex."""
        score_EK = source_VK[neighbours.source_E] + target_VK[neighbours.target_E]
        return neighbours.softmax(nn.functional.leaky_relu(score_EK, 0.2))

    def aggregate(self, z_VKH: Tensor, source_VK: Tensor, target_VK: Tensor, neighbours: Neighbours) -> Tensor:
        weight_EK = self.weights(source_VK, target_VK, neighbours)
        heads = [
            neighbours.sum(z_VKH[:, head].contiguous(), weight_EK[:, head].contiguous()) for head in range(self.heads)
        ]
        return torch.cat(heads, dim=1)

    def finish(self, x_VH: Tensor) -> Tensor:
        return self.activation(x_VH + self.bias)

    def steps(self, neighbours: Neighbours, order: Order) -> list[Step]:
        n, e, f, h, k = neighbours.vertices, neighbours.graph.edges, self.in_features, self.out_features, self.heads
        scores = Work(4 * n * h, _ITEM * (n * h + 2 * n * k))
        # per edge and head: add, leaky, compare, subtract, exponential, add, divide; two scores read, a weight written
        softmax = Work(7 * e * k, _ITEM * 3 * e * k)
        return [
            Step("combination", lambda s: self.combine(s[0]), _gemm_work(n, f, h) + scores),
            Step(
                "aggregation",
                lambda s: (self.aggregate(s[0], s[1], s[2], neighbours),),
                softmax + _sum_work(neighbours.graph, h, k),
            ),
            Step("combination", lambda s: (self.finish(s[0]),), _bias(n, h)),
        ]


LAYERS: dict[str, type[GraphLayer]] = {"gcn": GCNLayer, "graphsage": SAGELayer, "gin": GINLayer, "gat": GATLayer}


class GraphNetwork(nn.Module):
    """Layers of one kind, an activation after all but the last."""

    def __init__(self, kind: str, widths: Sequence[int]) -> None:
        super().__init__()
        if kind not in LAYERS:
            raise UsageError(f"no graph layer is called {kind!r}. Known: {', '.join(LAYERS)}")
        if len(widths) < 2:
            raise UsageError(f"a network has at least one layer, from features in to features out; got {list(widths)}")
        self.kind, self.widths = kind, tuple(widths)
        last = len(widths) - 2
        hidden: Activation = nn.functional.elu if kind == "gat" else torch.relu
        make: Callable[..., GraphLayer] = LAYERS[kind]
        self.layers = nn.ModuleList(
            # the last layer's heads would have to share the classes
            (partial(make, heads=1) if kind == "gat" and widths[i + 1] % 8 else make)(
                widths[i], widths[i + 1], same if i == last else hidden
            )
            for i in range(last + 1)
        )

    @property
    def orders(self) -> tuple[Order, ...]:
        """Legal orders of its layers, the usual one first."""
        return self._layers()[0].orders

    def prepare(self, graph: Graph, implementation: type[Neighbours] = Csr) -> Neighbours:
        """The graph with what all layers share: loops, fixed weights, the layout. Raises UsageError if it cannot be."""
        dtype = next(self.parameters()).dtype
        return implementation(*self._layers()[0].edges(graph, dtype))

    def steps(self, neighbours: Neighbours, order: Order | None = None) -> list[tuple[int, Step]]:
        """Every step with the number of its layer. Raises UsageError for an order that is not legal."""
        order = order or self.orders[0]
        found = []
        for i, layer in enumerate(self._layers()):
            reason = layer.why_not(order)
            if reason is not None:
                raise UsageError(reason)
            found += [(i, step) for step in layer.steps(neighbours, order)]
        return found

    def forward(self, x_VF: Tensor, neighbours: Neighbours, order: Order | None = None) -> Tensor:
        """[V, widths[-1]]. Raises UsageError for features that do not fit or hold NaN, and for an illegal order."""
        check_features(x_VF, neighbours.vertices, self.widths[0])
        for layer in self._layers():
            x_VF = layer(x_VF, neighbours, order)
        return x_VF

    def _layers(self) -> list[GraphLayer]:
        return list(self.layers)  # type: ignore[arg-type]


def network(kind: str, widths: Sequence[int], seed: int) -> GraphNetwork:
    """A network with random weights. Raises UsageError for an unknown kind and impossible widths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GraphNetwork(kind, widths).eval()


def check_features(x_VF: Tensor, vertices: int, features: int) -> None:
    """Raises UsageError for another shape than [V, F], and for the first value that is not finite."""
    if tuple(x_VF.shape) != (vertices, features):
        raise UsageError(f"wanted features of the shape ({vertices}, {features}); got {tuple(x_VF.shape)}")
    wrong = (~torch.isfinite(x_VF)).nonzero()
    if len(wrong):
        vertex, feature = wrong[0].tolist()
        raise UsageError(f"feature {feature} of vertex {vertex} is {x_VF[vertex, feature].item()}")


def _sum_work(graph: Graph, width: int, weights: int = 1) -> Work:
    """A weighted sum over neighbours: a row and its index read for each edge, one row written for each vertex."""
    index = _INDEX + _ITEM * (weights - 1)
    return Work(2 * graph.edges * width, graph.edges * (_ITEM * width + index) + _ITEM * graph.vertices * width)


def _gemm_work(n: int, f: int, h: int) -> Work:
    return Work(2 * n * f * h, _ITEM * (n * f + f * h + n * h), 2 * n * f * h)


def _bias(n: int, h: int) -> Work:
    """Bias and activation of what was just computed."""
    return Work(2 * n * h, _ITEM * 2 * n * h)
