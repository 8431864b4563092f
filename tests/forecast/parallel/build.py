"""Small models, captured once for all tests."""

import functools

import torch
from torch import nn

from gnomon.workload.capture import capture
from gnomon.workload.graph import OpGraph


class Mlp(nn.Module):
    """Two products with an activation between; `width` is what tensor parallelism divides."""

    def __init__(self, hidden: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(hidden, width, bias=bias), nn.Linear(width, hidden, bias=bias)

    def forward(self, x):
        return self.down(nn.functional.gelu(self.up(x)))


class Attention(nn.Module):
    """Multi-head attention whose inner width is heads x size, so that fewer heads can be built by themselves."""

    def __init__(self, hidden: int, heads: int, size: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused, inner = heads, fused, heads * size
        if fused:
            self.qkv = nn.Linear(hidden, 3 * inner)
        else:
            self.q, self.k, self.v = (nn.Linear(hidden, inner) for _ in range(3))
        self.out = nn.Linear(inner, hidden)

    def forward(self, x):
        parts = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    def __init__(self, hidden: int, heads: int, size: int, width: int, fused: bool) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention, self.mlp = Attention(hidden, heads, size, fused), Mlp(hidden, width)

    def forward(self, x):
        x = x + self.attention(self.n1(x))
        return x + self.mlp(self.n2(x))


class Language(nn.Module):
    """Embedding, blocks, norm, vocabulary."""

    def __init__(self, layers=2, hidden=16, heads=4, size=4, width=64, vocabulary=32, fused=True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, size, width, fused) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@functools.cache
def language(mode="inference", batch=4, tokens=8, **sizes) -> OpGraph:
    ids = torch.zeros(batch, tokens, dtype=torch.long)
    optimizer = "adamw" if mode == "training" else None
    return capture(Language(**sizes), ids, name="language", mode=mode, optimizer=optimizer)


@functools.cache
def mlp(mode="inference", rows=8, hidden=16, width=64, bias=False) -> OpGraph:
    return capture(Mlp(hidden, width, bias), torch.randn(rows, hidden), name="mlp", mode=mode)


def shapes(graph: OpGraph, *categories: str, phase: str | None = None) -> list[tuple]:
    """Name, operands, results and cost of the operators of these categories, in order."""
    return [
        (op.name, tuple(graph.shapes(op.inputs)), tuple(graph.shapes(op.outputs)), op.flop)
        for op in graph.ops
        if op.category in categories and phase in (None, op.phase)
    ]


def collectives(graph: OpGraph, phase: str | None = None) -> list:
    return [op for op in graph.ops if op.category == "collective" and phase in (None, op.phase)]


def assert_sound(graph: OpGraph) -> None:
    """Every value has one producer, which comes before those who take it; storages are freed after they are born."""
    made: set[int] = set()
    later = {t for op in graph.ops for t in op.outputs}
    for op in graph.ops:
        for t in op.inputs:
            assert t in made or t not in later, (op.name, op.module)
        for t in op.outputs:
            made.add(t)
    for storage in graph.storages:
        assert storage.bytes >= 0
        assert storage.freed is None or storage.born < storage.freed <= len(graph.ops)
