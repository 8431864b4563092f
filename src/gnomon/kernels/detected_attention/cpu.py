"""CPU implementations behind the operators: C++ (`cpu.cpp`) where there is a compiler, else the definition."""

from collections.abc import Callable

import torch
from torch import Tensor

from gnomon.kernels.detected_attention import reference

Forward = tuple[Tensor, Tensor]
Backward = tuple[Tensor, Tensor, Tensor]


def token_forward(q: Tensor, k: Tensor, v: Tensor, index: Tensor, count: Tensor, scale: float) -> Forward:
    """`reference.sparse_attention`."""
    return _forward(lambda q, k, v: reference.sparse_attention(q, k, v, index, count, scale), q, k, v)


def token_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    index: Tensor,
    count: Tensor,
    scale: float,
) -> Backward:
    """The gradient of `reference.sparse_attention`."""
    return _backward(
        lambda q, k, v: reference.sparse_attention(q, k, v, index, count, scale), grad_out, grad_lse, q, k, v
    )


def block_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    count: Tensor,
    block: list[int],
    is_causal: bool,
    key_mask: Tensor | None,
    scale: float,
) -> Forward:
    """`reference.block_sparse_attention`."""
    return _forward(_blocks(index, count, block, is_causal, key_mask, scale), q, k, v)


def block_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    index: Tensor,
    count: Tensor,
    block: list[int],
    is_causal: bool,
    key_mask: Tensor | None,
    scale: float,
) -> Backward:
    """The gradient of `reference.block_sparse_attention`."""
    return _backward(_blocks(index, count, block, is_causal, key_mask, scale), grad_out, grad_lse, q, k, v)


Definition = Callable[[Tensor, Tensor, Tensor], Forward]


def _blocks(
    index: Tensor, count: Tensor, block: list[int], is_causal: bool, key_mask: Tensor | None, scale: float
) -> Definition:
    size = (block[0], block[1])
    return lambda q, k, v: reference.block_sparse_attention(q, k, v, index, count, size, is_causal, key_mask, scale)


def _forward(definition: Definition, q: Tensor, k: Tensor, v: Tensor) -> Forward:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    out, lse = definition(q.to(wide), k.to(wide), v.to(wide))
    return out.to(q.dtype), lse


def _backward(
    definition: Definition, grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor
) -> Backward:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.enable_grad():
        inputs = [x.detach().to(wide, copy=True).requires_grad_() for x in (q, k, v)]
        out, lse = definition(*inputs)
        some = torch.isfinite(lse)  # a query that keeps nothing has no gradient
        loss = (out * grad_out).sum() + (0.0 if grad_lse is None else lse[some] @ grad_lse[some])
        dq, dk, dv = torch.autograd.grad(loss, inputs)
    return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype)
