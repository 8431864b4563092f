"""What a backend has to know about a call to say whether it can run it, and how long it would take."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gnomon.kernels.neighborhood_attention.problem import Problem


@dataclass(frozen=True, slots=True)
class Case:
    """A call without its tensors: sizes, dtype, device type, and what is asked of it.

    needs_grad: gradients will be asked for. needs_lse: the logsumexp is returned as well.
    """

    problem: Problem
    batch: int
    heads: int
    heads_kv: int
    head_dim: int
    head_dim_v: int
    dtype: torch.dtype
    device: str
    needs_grad: bool = False
    needs_lse: bool = False
    has_bias: bool = False

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, problem: Problem, rpb: Tensor | None, needs_lse: bool) -> "Case":
        """The case of a call. q, k, v: [B, *space, heads, D]; rpb: the table of biases, or None."""
        tensors = (q, k, v) if rpb is None else (q, k, v, rpb)
        return cls(
            problem,
            q.shape[0],
            q.shape[-2],
            k.shape[-2],
            q.shape[-1],
            v.shape[-1],
            q.dtype,
            q.device.type,
            torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors),
            needs_lse,
            rpb is not None,
        )

    @property
    def operands_bytes(self) -> int:
        """q, k, v and the output, each once."""
        per_token = self.heads * (self.head_dim + self.head_dim_v) + self.heads_kv * (self.head_dim + self.head_dim_v)
        return self.batch * self.problem.tokens * per_token * self.dtype.itemsize

    @property
    def dense_pairs(self) -> int:
        """Query-key pairs of all batches and heads without a window."""
        return self.batch * self.heads * self.problem.tokens**2

    @property
    def pairs(self) -> int:
        """Query-key pairs of all batches and heads that the window lets through."""
        return self.batch * self.heads * self.problem.pairs()

    def flop(self, pairs: int) -> float:
        """Of two matrix products over so many pairs; a backward pass has five more, so 2.5 times as many again."""
        return 2.0 * pairs * (self.head_dim + self.head_dim_v) * (3.5 if self.needs_grad else 1.0)
