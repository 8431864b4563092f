"""The operators `gnomon::sparse_attention` and `gnomon::block_sparse_attention`, forward and backward.

Exact attention over a kept set of keys. Both come with shapes for compilers, gradients, a CPU kernel (`cpu.py`) and a
GPU kernel (`gpu.py`); `reference.py` is the definition.

    sparse_attention(q, k, v, index, count, scale) -> (out, lse)                               single keys
    block_sparse_attention(q, k, v, index, count, block, is_causal, key_mask, scale) -> (out, lse)  blocks of keys

q: [B, H, N, D]; k, v: [B, G, M, D], H a multiple of G (query head h reads head h // (H / G)); float32, bfloat16,
float16 or float64, all three alike, any strides. scale: what scores are multiplied by.

index, count: int32, contiguous. Of single keys: [B, H, N, K] and [B, H, N]. Of blocks of keys: [B, H, T, K] and
[B, H, T], T = ceil(N / block[0]), with numbers of key blocks below ceil(M / block[1]). `index[..., :count]` are the
kept ones, distinct and ascending; what follows them is -1. count is 0..K. `select.py` makes them.

block: (queries, keys) of a block. is_causal: query i sees keys j <= i + M - N. key_mask: bool [B, M], True where the
key exists. These two hold key by key inside kept blocks; single keys were masked when they were selected.

out: [B, H, N, D] of q's dtype. lse: [B, H, N], natural logarithm of the sum of exp(scores) over the kept keys; float32,
float64 for float64. A query that keeps (or sees) no key has out = 0 and lse = -inf.

The backwards take grad_out, grad_lse (or None) and what the forward took and gave, and return (dq, dk, dv) of q's
dtype, contiguous. `gpu.py` has token_forward, token_backward, block_forward and block_backward with the arguments of
the four operators. Results do not depend on the number of threads.

Axes: see `reference.py`.
"""

from typing import Any

import torch
from torch import Tensor

from gnomon.kernels.detected_attention import cpu

_QKV = "Tensor q, Tensor k, Tensor v"
_TOKEN = "Tensor index, Tensor count, float scale"
_BLOCK = "Tensor index, Tensor count, int[] block, bool is_causal, Tensor? key_mask, float scale"
_GIVEN = "Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse"

_library = torch.library.Library("gnomon", "FRAGMENT")
_library.define(f"sparse_attention({_QKV}, {_TOKEN}) -> (Tensor out, Tensor lse)")
_library.define(f"sparse_attention_backward({_GIVEN}, {_TOKEN}) -> (Tensor dq, Tensor dk, Tensor dv)")
_library.define(f"block_sparse_attention({_QKV}, {_BLOCK}) -> (Tensor out, Tensor lse)")
_library.define(f"block_sparse_attention_backward({_GIVEN}, {_BLOCK}) -> (Tensor dq, Tensor dk, Tensor dv)")

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, count: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Attention of every query over its own kept keys; differentiable in q, k and v.

    Shapes and dtypes: see the head of this file. scale: None for 1 / sqrt(D). Returns (out, lse).
    Raises ValueError naming the argument that does not fit.
    """
    _check(q, k, v, index, count, q.shape[2] if q.ndim == 4 else 0)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = torch.ops.gnomon.sparse_attention(q, k, v, index, count, scale)
    return out, lse


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    count: Tensor,
    block: tuple[int, int],
    is_causal: bool = False,
    key_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of every block of queries over its kept blocks of keys; differentiable in q, k and v.

    Shapes and dtypes: see the head of this file. scale: None for 1 / sqrt(D). Returns (out, lse).
    Raises ValueError naming the argument that does not fit.
    """
    if len(block) != 2 or min(block) < 1:
        raise ValueError(f"block must be two positive sizes (queries, keys); got {block}")
    _check(q, k, v, index, count, -(-q.shape[2] // block[0]) if q.ndim == 4 else 0)
    if key_mask is not None and (key_mask.dtype != torch.bool or key_mask.shape != (k.shape[0], k.shape[2])):
        raise ValueError(
            f"key_mask must be bool [B, M] = {(k.shape[0], k.shape[2])}, True where the key exists; "
            f"got {key_mask.dtype} {tuple(key_mask.shape)}"
        )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = torch.ops.gnomon.block_sparse_attention(q, k, v, index, count, block, is_causal, key_mask, scale)
    return out, lse


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raises ValueError when q [B, H, N, D] and k, v [B, G, M, D] do not fit each other."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4:
            raise ValueError(f"{name} must have four axes [batch, heads, tokens, head size]; got {tuple(x.shape)}")
        if x.dtype not in DTYPES:
            raise ValueError(f"{name} must be float32, bfloat16, float16 or float64; got {x.dtype}")
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(f"{name} must be {q.dtype} on {q.device} as q is; got {x.dtype} on {x.device}")
    if k.shape != v.shape:
        raise ValueError(f"v must have the shape of k, {tuple(k.shape)}; got {tuple(v.shape)}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"k must share batch and head size with q, {tuple(q.shape)}; got {tuple(k.shape)}")
    if not (q.shape[2] and k.shape[2]):
        raise ValueError(f"q and k must hold at least one token; got N = {q.shape[2]} and M = {k.shape[2]}")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"k must have a number of heads that divides the {q.shape[1]} of q; got {k.shape[1]}")


def _check(q: Tensor, k: Tensor, v: Tensor, index: Tensor, count: Tensor, rows: int) -> None:
    check_qkv(q, k, v)
    wanted = (q.shape[0], q.shape[1], rows)
    for name, x in (("index", index), ("count", count)):
        if x.dtype != torch.int32 or x.device != q.device:
            raise ValueError(f"{name} must be int32 on {q.device}; got {x.dtype} on {x.device}")
    if index.ndim != 4 or index.shape[:3] != wanted:
        raise ValueError(f"index must be {list(wanted)} + [kept]; got {tuple(index.shape)}")
    if count.shape != wanted:
        raise ValueError(f"count must be {list(wanted)}; got {tuple(count.shape)}")


def _fake(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    lse = q.new_empty(q.shape[:3], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), lse


def _fake_backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.given = [x for x in inputs if not isinstance(x, Tensor)]
    ctx.is_tensor = [isinstance(x, Tensor) for x in inputs]
    ctx.save_for_backward(*output, *(x for x in inputs if isinstance(x, Tensor)))


def _backward(operator: Any) -> Any:
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        out, lse, *tensors = ctx.saved_tensors
        tensors_left, others_left = iter(tensors), iter(ctx.given)
        q, k, v, *rest = (next(tensors_left) if is_tensor else next(others_left) for is_tensor in ctx.is_tensor)
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out
        return *operator(grad_out, grad_lse, q, k, v, out, lse, *rest), *(None for _ in rest)

    return backward


def _gpu(function: str) -> Any:
    def call(*arguments: Any) -> Any:
        from gnomon.kernels.detected_attention import gpu

        return getattr(gpu, function)(*arguments)

    return call


for _name, _kind in (("sparse_attention", "token"), ("block_sparse_attention", "block")):
    for _suffix, _pass, _shapes in (("", "forward", _fake), ("_backward", "backward", _fake_backward)):
        torch.library.register_fake(f"gnomon::{_name}{_suffix}", _shapes, lib=_library)
        _library.impl(f"{_name}{_suffix}", getattr(cpu, f"{_kind}_{_pass}"), "CPU")
        _library.impl(f"{_name}{_suffix}", _gpu(f"{_kind}_{_pass}"), "CUDA")
    torch.library.register_autograd(
        f"gnomon::{_name}",
        _backward(getattr(torch.ops.gnomon, f"{_name}_backward")),
        setup_context=_save,
        lib=_library,
    )
