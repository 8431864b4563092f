"""CPU implementations behind the operators: C++ (`native.py`) where there is a compiler, else the definition.

float64 always takes the definition: it is for checks.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gnomon.kernels.detected_attention import native, reference, select

Forward = tuple[Tensor, Tensor]
Backward = tuple[Tensor, Tensor, Tensor]
Definition = Callable[[Tensor, Tensor, Tensor], Forward]


def token_forward(q: Tensor, k: Tensor, v: Tensor, index: Tensor, count: Tensor, scale: float) -> Forward:
    """See `operator.sparse_attention`."""
    if q.dtype != torch.float64 and (library := native.KERNELS.get()):
        out, lse = native.token_forward(library, q, k, v, index, count, scale)
        return _owned(out, q.dtype), lse
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
    """See `operator.sparse_attention`."""
    if q.dtype != torch.float64 and (library := native.KERNELS.get()):
        dq, dk, dv = native.token_backward(library, grad_out, grad_lse, q, k, v, out, lse, index, count, scale)
        return _owned(dq, q.dtype), _owned(dk, q.dtype), _owned(dv, q.dtype)
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
    """See `operator.block_sparse_attention`."""
    if q.dtype != torch.float64 and (library := native.KERNELS.get()):
        out, lse = native.block_forward(library, q, k, v, index, count, block, is_causal, key_mask, scale)
        return _owned(out, q.dtype), lse
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
    """See `operator.block_sparse_attention`."""
    if q.dtype != torch.float64 and (library := native.KERNELS.get()):
        given = (grad_out, grad_lse, q, k, v, out, lse, index, count, block, is_causal, key_mask, scale)
        dq, dk, dv = native.block_backward(library, *given)
        return _owned(dq, q.dtype), _owned(dk, q.dtype), _owned(dv, q.dtype)
    return _backward(_blocks(index, count, block, is_causal, key_mask, scale), grad_out, grad_lse, q, k, v)


def select_top_k(q_est: Tensor, k_est: Tensor, key_mask: Tensor | None, is_causal: bool, retention: float) -> Forward:
    """See `operator.select_top_k`."""
    if library := native.KERNELS.get():
        return native.select_top_k(library, q_est, k_est, key_mask, is_causal, retention)
    return select.top_k_of_integers(q_est, k_est, key_mask, is_causal, retention)


def select_blocks(
    q_est: Tensor, k_est: Tensor, key_mask: Tensor | None, is_causal: bool, retention: float, block: list[int]
) -> Forward:
    """See `operator.select_blocks`."""
    if library := native.KERNELS.get():
        return native.select_blocks(library, q_est, k_est, key_mask, is_causal, retention, block)
    return select.blocks_of_integers(q_est, k_est, key_mask, is_causal, retention, block)


def detect_attend(
    q_est: Tensor,
    k_est: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    is_causal: bool,
    retention: float,
    scale: float,
) -> Forward:
    """See `operator.detect_attend`."""
    if q.dtype != torch.float64 and (library := native.KERNELS.get()):
        out, lse = native.detect_attend(library, q_est, k_est, q, k, v, key_mask, is_causal, retention, scale)
        return _owned(out, q.dtype), lse
    return token_forward(q, k, v, *select_top_k(q_est, k_est, key_mask, is_causal, retention), scale)


def _owned(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Contiguous, of this dtype."""
    return x.to(dtype).contiguous()


def _blocks(
    index: Tensor, count: Tensor, block: list[int], is_causal: bool, key_mask: Tensor | None, scale: float
) -> Definition:
    size = (block[0], block[1])
    return lambda q, k, v: reference.block_sparse_attention(q, k, v, index, count, size, is_causal, key_mask, scale)


def _forward(definition: Definition, q: Tensor, k: Tensor, v: Tensor) -> Forward:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    out, lse = definition(q.to(wide), k.to(wide), v.to(wide))
    return _owned(out, q.dtype), lse


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
    return _owned(dq, q.dtype), _owned(dk, q.dtype), _owned(dv, q.dtype)
