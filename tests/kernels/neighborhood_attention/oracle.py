"""Neighborhood attention and its gradient as loops in float64, written from the rules as published, not from our code.

For one axis of n tokens, window w, stride s, dilation d, causal or not (arXiv:2403.04690 and 2504.16922):
token i is number i div d of group i mod d; a query sees keys of its group only; the queries of one stride group look
from the place of their leader; a bidirectional window is shifted at the edges and never cut; a causal one is cut there
and ends at the query.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seen_along_axis(i: int, n: int, w: int, s: int, d: int, causal: bool) -> list[int]:
    """The tokens of one axis that token i sees."""
    group = list(range(i % d, n, d))
    me, last = i // d, len(group) - 1
    start_of_stride_group = s * (me // s)
    if causal:
        leader = min(start_of_stride_group + s - 1, last)
        return [group[j] for j in range(max(leader - w + 1, 0), me + 1)]
    leader = min(start_of_stride_group + s // 2, last)
    left = leader - w // 2  # w // 2 to the left; w // 2 - 1 + w % 2 to the right
    while left < 0:
        left += 1
    while left + w - 1 > last:
        left -= 1
    return [group[j] for j in range(left, left + w)]


@dataclass(frozen=True)
class Call:
    """A call of na1d, na2d or na3d with its tensors' sizes."""

    space: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    is_causal: tuple[bool, ...]
    batch: int = 1
    heads: int = 1
    heads_kv: int = 1
    head_dim: int = 8
    scale: float = 1.0
    has_bias: bool = False
    dtype: torch.dtype = torch.float64

    @property
    def window(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("kernel_size", "stride", "dilation", "is_causal")}

    def tensors(self, seed: int = 0) -> "Tensors":
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, dtype: torch.dtype = self.dtype) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        grid, kv = (self.batch, *self.space, self.heads), (self.batch, *self.space, self.heads_kv, self.head_dim)
        wide = torch.promote_types(self.dtype, torch.float32)
        bias = normal(self.heads, *(2 * w - 1 for w in self.kernel_size)) if self.has_bias else None
        return Tensors(normal(*grid, self.head_dim), normal(*kv), normal(*kv), bias,
                       normal(*grid, self.head_dim), normal(*grid, dtype=wide))  # fmt: skip


@dataclass(frozen=True)
class Tensors:
    q: Tensor
    k: Tensor
    v: Tensor
    rpb: Tensor | None
    grad_out: Tensor
    grad_lse: Tensor


@dataclass
class Answer:
    """Float64 arrays in the shapes of the tensors they belong to."""

    out: np.ndarray
    lse: np.ndarray
    gradients: list[np.ndarray] = field(default_factory=list)  # of q, k, v and, where there is one, rpb


def attend(call: Call, tensors: Tensors) -> Answer:
    """Output, logsumexp and the gradients for grad_out and grad_lse: one query of one head at a time."""
    q, k, v, go, gl = (
        x.double().numpy() for x in (tensors.q, tensors.k, tensors.v, tensors.grad_out, tensors.grad_lse)
    )
    bias = None if tensors.rpb is None else tensors.rpb.double().numpy()
    answer = Answer(np.zeros_like(q), np.zeros(q.shape[:-1]))
    gq, gk, gv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    gbias = None if bias is None else np.zeros_like(bias)
    rows = list(zip(call.space, call.kernel_size, call.stride, call.dilation, call.is_causal, strict=True))
    sees = [[seen_along_axis(i, *row) for i in range(row[0])] for row in rows]
    for query in itertools.product(*map(range, call.space)):
        keys = list(itertools.product(*(seen[i] for seen, i in zip(sees, query, strict=True))))
        at = tuple(np.array(keys).T)
        offset = tuple(
            np.array([key[a] // d - query[a] // d + w - 1 for key in keys])
            for a, (w, d) in enumerate(zip(call.kernel_size, call.dilation, strict=True))
        )
        for b, h in itertools.product(range(call.batch), range(call.heads)):
            g = h * call.heads_kv // call.heads
            here = (b, *query, h)
            k_MD, v_MD = k[(b, *at, g)], v[(b, *at, g)]
            score_M = call.scale * (k_MD @ q[here])
            if bias is not None:
                score_M = score_M + bias[(h, *offset)]
            lse = score_M.max() + math.log(np.exp(score_M - score_M.max()).sum())
            p_M = np.exp(score_M - lse)
            answer.lse[here], answer.out[here] = lse, p_M @ v_MD
            ds_M = p_M * (v_MD @ go[here] - go[here] @ answer.out[here] + gl[here])
            gq[here] = call.scale * (ds_M @ k_MD)
            # no key comes twice, so the indices do not either
            gk[(b, *at, g)] += call.scale * ds_M[:, None] * q[here]
            gv[(b, *at, g)] += p_M[:, None] * go[here]
            if gbias is not None:
                gbias[(h, *offset)] += ds_M
    answer.gradients = [gq, gk, gv] if gbias is None else [gq, gk, gv, gbias]
    return answer


def random_call(seed: int) -> Call:
    """Anything that is allowed: 1 to 3 axes, even windows, strides, dilations that do not divide, mixed causality,
    grouped heads, biases, odd head sizes from 8 to 160, every dtype."""
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(1, 4))
    longest = (70, 10, 6)[axes - 1]
    rows = []
    for _ in range(axes):
        n = int(rng.integers(1, longest + 1))
        d = int(rng.integers(1, max(n // 2, 1) + 1)) if rng.random() < 0.5 else 1
        w = int(rng.integers(1 if rng.random() < 0.1 else min(2, n // d), n // d + 1))
        s = int(rng.integers(1, w + 1)) if rng.random() < 0.5 else 1
        rows.append((n, w, s, d, bool(rng.random() < 0.4)))
    heads_kv, repeats = int(rng.integers(1, 4)), int(rng.choice([1, 1, 2, 3]))
    head_dim = int(rng.choice([8, 16, 32, 64, rng.integers(8, 161)]))
    dtypes = [torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16]
    return Call(
        *zip(*rows, strict=True),
        batch=int(rng.integers(1, 3)),
        heads=heads_kv * repeats,
        heads_kv=heads_kv,
        head_dim=head_dim,
        scale=float(rng.choice([head_dim**-0.5, 0.0, -0.3, 0.25])) if rng.random() < 0.3 else head_dim**-0.5,
        has_bias=bool(rng.random() < 0.3),
        dtype=dtypes[int(rng.integers(len(dtypes)))],
    )
