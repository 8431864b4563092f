"""Graph convolution (Kipf & Welling 2017, arXiv:1609.02907, eq. 2) on a generated graph with a skewed degree law.

Axes: V nodes, E directed edges, F input features, C output features.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn


class GraphConvolution(nn.Module):
    """D^-1/2 (A + I) D^-1/2 X W + b, combining before aggregating: fewer numbers travel along the edges when C < F."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.combine = nn.Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, features: Tensor, edge_index: Tensor, scale: Tensor) -> Tensor:
        """features: [V, F]; edge_index: [2, E] int64, source and target; scale: [V], degree^-1/2. Returns [V, C]."""
        source, target = edge_index[0], edge_index[1]
        message_VC = self.combine(features) * scale.unsqueeze(-1)
        total_VC = message_VC.index_add(0, target, message_VC[source])  # starting from itself is the self loop
        return total_VC * scale.unsqueeze(-1) + self.bias


class GCN(nn.Module):
    """Graph convolutions with ReLU between them."""

    def __init__(self, in_features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        sizes = [in_features, *[hidden] * (layers - 1), classes]
        self.layers = nn.ModuleList(GraphConvolution(a, b) for a, b in pairwise(sizes))

    def forward(self, features: Tensor, edge_index: Tensor) -> Tensor:
        """features: [V, F]; edge_index: [2, E] int64. Returns class scores [V, C]."""
        ones_E = torch.ones_like(edge_index[1], dtype=features.dtype)
        degree_V = torch.ones_like(features[:, 0]).index_add(0, edge_index[1], ones_E)  # 1 for the self loop
        scale_V = degree_V.rsqrt()
        for layer in self.layers[:-1]:
            features = torch.relu(layer(features, edge_index, scale_V))
        return self.layers[-1](features, edge_index, scale_V)


def build(in_features: int, hidden: int, classes: int, layers: int) -> GCN:
    """A GCN with random weights. Raises ValueError when a size is not positive."""
    if min(in_features, hidden, classes, layers) < 1:
        raise ValueError(f"sizes must be positive; got {in_features=}, {hidden=}, {classes=}, {layers=}")
    return GCN(in_features, hidden, classes, layers)


def examples(dims: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """V nodes with normal features and E directed edges, whose ends are drawn with probability ~ rank^-0.8."""
    generator = torch.Generator().manual_seed(seed)
    weight_V = torch.arange(1, dims["V"] + 1, dtype=torch.float64).pow(-0.8)
    names_V = torch.randperm(dims["V"], generator=generator)  # a node's number says nothing about its degree
    drawn = torch.multinomial(weight_V, 2 * dims["E"], replacement=True, generator=generator)
    return {
        "features": torch.randn(dims["V"], dims["F"], generator=generator),
        "edge_index": names_V[drawn].reshape(2, dims["E"]),
    }
