"""Neighborhood attention on a CPU."""

import torch
from torch import Tensor

from gnomon.kernels.neighborhood_attention import reference
from gnomon.kernels.neighborhood_attention.problem import Problem


def forward(
    q: Tensor, k: Tensor, v: Tensor, problem: Problem, scale: float, rpb: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(out, lse), contiguous; arguments as in `reference.neighborhood_attention`."""
    if q.numel() == 0:
        return q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=torch.promote_types(q.dtype, torch.float32))
    out, lse = reference.neighborhood_attention(q, k, v, problem, scale, rpb)
    return out.contiguous(), lse.contiguous()


def backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    problem: Problem,
    scale: float,
    rpb: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(dq, dk, dv, drpb or None), contiguous; arguments as in `reference.backward`."""
    if q.numel() == 0:
        return (*(torch.zeros_like(x) for x in (q, k, v)), None if rpb is None else torch.zeros_like(rpb))  # type: ignore[return-value]
    dq, dk, dv, drpb = reference.backward(grad_out, grad_lse, q, k, v, out, lse, problem, scale, rpb)
    return dq.contiguous(), dk.contiguous(), dv.contiguous(), drpb
