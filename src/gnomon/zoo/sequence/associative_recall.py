"""Bound associative recall: pairs (key, value), each one token, and queries that ask for the value of a key.

A task whose answer sits at one position out of many and depends on the input, so a fixed sparse pattern cannot solve
it: attention has to find the pair with the query's key. Pairs and queries stand in random order; scored on queries.

Axes: B sequences, N tokens, C width, H heads, D head size, V values.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (x [B, N, C], q, k, v [B, H, N, D]) -> [B, H, N, D]


class Sequences(NamedTuple):
    """A batch. keys: [B, N] int64, the key of each token. values: [B, N] int64, its value, or the number of values for
    a query. answers: [B, N] int64, what a query should answer, -100 elsewhere."""

    keys: Tensor
    values: Tensor
    answers: Tensor


@dataclass(frozen=True, slots=True)
class Recall:
    """The task's sizes: the chance of guessing right is 1 / values. Raises ValueError when pairs exceed keys."""

    pairs: int = 96
    queries: int = 32
    keys: int = 128
    values: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.pairs <= self.keys:
            raise ValueError(f"pairs must be 1 to {self.keys}, one for each different key; got {self.pairs}")

    @property
    def tokens(self) -> int:
        """Length of a sequence."""
        return self.pairs + self.queries

    def draw(self, batch: int, generator: torch.Generator) -> Sequences:
        """`batch` sequences: different keys with random values, queries for some of them, all in random order."""
        keys_BP = torch.rand(batch, self.keys, generator=generator).argsort(1)[:, : self.pairs]
        values_BP = torch.randint(0, self.values, (batch, self.pairs), generator=generator)
        asked_BQ = torch.randint(0, self.pairs, (batch, self.queries), generator=generator)
        keys = torch.cat([keys_BP, keys_BP.gather(1, asked_BQ)], 1)
        values = torch.cat([values_BP, torch.full((batch, self.queries), self.values)], 1)
        answers = torch.cat([torch.full((batch, self.pairs), -100), values_BP.gather(1, asked_BQ)], 1)
        order = torch.rand(batch, self.tokens, generator=generator).argsort(1)
        return Sequences(keys.gather(1, order), values.gather(1, order), answers.gather(1, order))


class SelfAttention(nn.Module):
    """Self-attention of H heads whose inner part, `attend`, can be replaced; None is dense attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.attend: Attend | None = None

    def forward(self, x_BNC: Tensor) -> Tensor:
        """x: [B, N, C]. Returns [B, N, C]."""
        q, k, v = (f(x_BNC).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        if self.attend is None:
            out_BHND = functional.scaled_dot_product_attention(q, k, v)
        else:
            out_BHND = self.attend(x_BNC, q, k, v)
        out: Tensor = self.output(out_BHND.transpose(1, 2).flatten(-2))
        return out


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BNC: Tensor) -> Tensor:
        """x: [B, N, C]. Returns [B, N, C]."""
        x_BNC = x_BNC + self.attention(self.norm1(x_BNC))
        out: Tensor = x_BNC + self.inner(self.norm2(x_BNC))
        return out


class RecallTransformer(nn.Module):
    """A small transformer over the sum of key, value and position embeddings."""

    def __init__(self, task: Recall, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.key, self.value = nn.Embedding(task.keys, width), nn.Embedding(task.values + 1, width)
        self.position = nn.Parameter(0.02 * torch.randn(task.tokens, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm, self.answer = nn.LayerNorm(width), nn.Linear(width, task.values)

    def forward(self, keys: Tensor, values: Tensor) -> Tensor:
        """keys, values: [B, N] int64, as in `Sequences`. Returns logits [B, N, V]."""
        x_BNC = self.key(keys) + self.value(values) + self.position
        for layer in self.layers:
            x_BNC = layer(x_BNC)
        logits: Tensor = self.answer(self.norm(x_BNC))
        return logits

    def attentions(self) -> list[SelfAttention]:
        """The attention of every layer, in order."""
        return [layer.attention for layer in self.layers if isinstance(layer, Layer)]


def loss(model: nn.Module, batch: Sequences) -> Tensor:
    """Mean cross-entropy over the queries of a batch."""
    logits: Tensor = model(batch.keys, batch.values)
    return functional.cross_entropy(logits.flatten(0, 1), batch.answers.flatten(), ignore_index=-100)


def fit(
    model: nn.Module,
    task: Recall,
    seed: int,
    steps: int = 1500,
    batch: int = 32,
    learning_rate: float = 2e-3,
    parameters: Iterable[nn.Parameter] | None = None,
    objective: Callable[[nn.Module, Sequences], Tensor] = loss,
    warmup: int = 50,
) -> list[float]:
    """Train with AdamW on fresh sequences: a linear warm-up, then a cosine down to zero. Returns each step's loss.

    parameters: what is trained, None for all. objective: what is minimised.
    """
    generator = torch.Generator().manual_seed(seed)
    trained = list(model.parameters() if parameters is None else parameters)
    optimizer = torch.optim.AdamW(trained, learning_rate, weight_decay=0.01)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / max(warmup, 1), total_iters=warmup)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])
    losses = []
    model.train()
    for _ in range(steps):
        value = objective(model, task.draw(batch, generator))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(value.detach()))
    return losses


@torch.no_grad()
def accuracy(model: nn.Module, task: Recall, seed: int, sequences: int = 256, batch: int = 64) -> float:
    """Share of queries answered right on fresh sequences."""
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    right = asked = 0
    for _ in range(-(-sequences // batch)):
        drawn = task.draw(batch, generator)
        is_query = drawn.answers >= 0
        right += int((model(drawn.keys, drawn.values).argmax(-1) == drawn.answers)[is_query].sum())
        asked += int(is_query.sum())
    return right / asked
