"""The operators `gnomon::sparse_attention` and `gnomon::block_sparse_attention`, forward and backward.

Exact attention over a kept set of keys. Both come with shapes for compilers, gradients, a CPU kernel (`cpu.py`) and a
GPU kernel (`gpu.py`); `reference.py` is the definition.

    sparse_attention(q, k, v, index, count, scale) -> (out, lse)                               single keys
    block_sparse_attention(q, k, v, index, count, block, is_causal, key_mask, scale) -> (out, lse)  blocks of keys
    select_top_k(q_est, k_est, key_mask, is_causal, retention) -> (index, count)                detection of single keys
    select_blocks(q_est, k_est, key_mask, is_causal, retention, block) -> (index, count)        of blocks of keys
    detect_attend(q_est, k_est, q, k, v, key_mask, is_causal, retention, scale) -> (out, lse)   keys and attention

q: [B, H, N, D]; k, v: [B, G, M, D], H a multiple of G (query head h reads head h // (H / G)); float32, bfloat16,
float16 or float64, all three alike, any strides. scale: what scores are multiplied by.

index, count: int32, contiguous. Of single keys: [B, H, N, K] and [B, H, N]. Of blocks of keys: [B, H, T, K] and
[B, H, T], T = ceil(N / block[0]), with numbers of key blocks below ceil(M / block[1]). `index[..., :count]` are the
kept ones, distinct and ascending; what follows them is -1. count is 0..K. `select.py` makes them.

block: (queries, keys) of a block. is_causal: query i sees keys j <= i + M - N. key_mask: bool [B, M], True where the
key exists. These two hold key by key inside kept blocks; single keys were masked when they were selected.

q_est, k_est: int8 [B, H, N, R] and [B, G, M, R], not -128: the detector's operands, whose exact products rank the keys.
retention: every query keeps the first min(ceil(retention * keys that exist), keys that it may see); a block of queries
as many key blocks, a block ranked by the largest product that may be seen in it.

out: [B, H, N, D] of q's dtype. lse: [B, H, N], natural logarithm of the sum of exp(scores) over the kept keys; float32,
float64 for float64. A query that keeps (or sees) no key has out = 0 and lse = -inf.

The backwards take grad_out, grad_lse (or None) and what the forward took and gave, and return (dq, dk, dv) of q's
dtype, contiguous. `gpu.py` has token_forward, token_backward, block_forward and block_backward with the arguments of
the four operators. Results do not depend on the number of threads.

Axes: see `reference.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnomon.kernels.detected_attention import cpu
from gnomon.kernels.detected_attention.select import (
    Kept,
    blocks_of_integers,
    check_block,
    check_retention,
    kept_of,
    top_k_of_integers,
)

_QKV = "Tensor q, Tensor k, Tensor v"
_TOKEN = "Tensor index, Tensor count, float scale"
_BLOCK = "Tensor index, Tensor count, int[] block, bool is_causal, Tensor? key_mask, float scale"
_GIVEN = "Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse"

_library = torch.library.Library("gnomon", "FRAGMENT")
_library.define(f"sparse_attention({_QKV}, {_TOKEN}) -> (Tensor out, Tensor lse)")
_library.define(f"sparse_attention_backward({_GIVEN}, {_TOKEN}) -> (Tensor dq, Tensor dk, Tensor dv)")
_library.define(f"block_sparse_attention({_QKV}, {_BLOCK}) -> (Tensor out, Tensor lse)")
_library.define(f"block_sparse_attention_backward({_GIVEN}, {_BLOCK}) -> (Tensor dq, Tensor dk, Tensor dv)")
_library.define(
    "select_top_k(Tensor q_est, Tensor k_est, Tensor? key_mask, bool is_causal, float retention)"
    " -> (Tensor index, Tensor count)"
)
_library.define(
    "select_blocks(Tensor q_est, Tensor k_est, Tensor? key_mask, bool is_causal, float retention, int[] block)"
    " -> (Tensor index, Tensor count)"
)
_library.define(
    f"detect_attend(Tensor q_est, Tensor k_est, {_QKV}, Tensor? key_mask, bool is_causal, float retention, float scale)"
    " -> (Tensor out, Tensor lse)"
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LARGEST_RANK = 1040  # up to here sums of products of int8 are exact in float32


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
    check_block(block)
    _check(q, k, v, index, count, -(-q.shape[2] // block[0]) if q.ndim == 4 else 0)
    if key_mask is not None:
        _check_key_mask(key_mask, (k.shape[0], k.shape[2]))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = torch.ops.gnomon.block_sparse_attention(q, k, v, index, count, block, is_causal, key_mask, scale)
    return out, lse


def select_top_k(
    q_est: Tensor, k_est: Tensor, retention: float, is_causal: bool = False, key_mask: Tensor | None = None
) -> Kept:
    """The keys that each query keeps, by estimates in whole numbers; equal ones: the lower index first.

    Shapes and dtypes: see the head of this file. Raises ValueError naming the argument that does not fit.
    """
    _check_estimate(q_est, k_est, retention, key_mask)
    return Kept(*torch.ops.gnomon.select_top_k(q_est, k_est, key_mask, is_causal, retention))


def select_blocks(
    q_est: Tensor,
    k_est: Tensor,
    retention: float,
    block: tuple[int, int],
    is_causal: bool = False,
    key_mask: Tensor | None = None,
) -> Kept:
    """The key blocks that each block of queries keeps: those with the largest products; equal ones: the lower first.

    Shapes and dtypes: see the head of this file. Raises ValueError naming the argument that does not fit.
    """
    _check_estimate(q_est, k_est, retention, key_mask)
    check_block(block)
    return Kept(*torch.ops.gnomon.select_blocks(q_est, k_est, key_mask, is_causal, retention, block))


def detect_attend(
    q_est: Tensor,
    k_est: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    retention: float,
    is_causal: bool = False,
    key_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`select_top_k` and `sparse_attention` in one pass that keeps the kept set to itself; has no gradient.

    Raises ValueError naming the argument that does not fit.
    """
    check_qkv(q, k, v)
    _check_estimate(q_est, k_est, retention, key_mask)
    if q_est.shape[:3] != q.shape[:3] or k_est.shape[:3] != k.shape[:3]:
        raise ValueError(
            f"q_est and k_est must be estimates for q and k, {tuple(q.shape[:3])} and {tuple(k.shape[:3])} + [rank]; "
            f"got {tuple(q_est.shape)} and {tuple(k_est.shape)}"
        )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = torch.ops.gnomon.detect_attend(q_est, k_est, q, k, v, key_mask, is_causal, retention, scale)
    return out, lse


def _check_estimate(q_est: Tensor, k_est: Tensor, retention: float, key_mask: Tensor | None) -> None:
    check_retention(retention)
    for name, x in (("q_est", q_est), ("k_est", k_est)):
        if x.dtype != torch.int8 or x.ndim != 4 or x.device != q_est.device:
            raise ValueError(f"{name} must be int8 [batch, heads, tokens, rank]; got {x.dtype} {tuple(x.shape)}")
        if 0 in x.shape[2:] or x.shape[3] > LARGEST_RANK:
            raise ValueError(f"{name} must have tokens, and a rank of 1 to {LARGEST_RANK}; got {tuple(x.shape)}")
    if q_est.shape[0] != k_est.shape[0] or q_est.shape[3] != k_est.shape[3] or q_est.shape[1] % max(1, k_est.shape[1]):
        raise ValueError(
            f"k_est must share batch and rank with q_est and have a divisor of its heads, {tuple(q_est.shape)}; "
            f"got {tuple(k_est.shape)}"
        )
    if key_mask is not None:
        _check_key_mask(key_mask, (k_est.shape[0], k_est.shape[2]))


def _check_key_mask(key_mask: Tensor, wanted: tuple[int, int]) -> None:
    if key_mask.dtype != torch.bool or key_mask.shape != wanted:
        raise ValueError(
            f"key_mask must be bool [B, M] = {wanted}, True where the key exists; "
            f"got {key_mask.dtype} {tuple(key_mask.shape)}"
        )


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


def _fake_blocks(
    q_est: Tensor, k_est: Tensor, _: Any, __: bool, retention: float, block: Sequence[int]
) -> tuple[Tensor, Tensor]:
    tiles, kept = -(-q_est.shape[2] // block[0]), kept_of(retention, -(-k_est.shape[2] // block[1]))
    return (
        q_est.new_empty(*q_est.shape[:2], tiles, kept, dtype=torch.int32),
        q_est.new_empty(*q_est.shape[:2], tiles, dtype=torch.int32),
    )


def _fake_select(q_est: Tensor, k_est: Tensor, _: Any, __: bool, retention: float) -> tuple[Tensor, Tensor]:
    kept = kept_of(retention, k_est.shape[2])
    return (
        q_est.new_empty(*q_est.shape[:3], kept, dtype=torch.int32),
        q_est.new_empty(q_est.shape[:3], dtype=torch.int32),
    )


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


def _detect_attend_gpu(
    q_est: Tensor,
    k_est: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    is_causal: bool,
    retention: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    kept = torch.ops.gnomon.select_top_k(q_est, k_est, key_mask, is_causal, retention)
    out, lse = torch.ops.gnomon.sparse_attention(q, k, v, *kept, scale)
    return out, lse


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

torch.library.register_fake("gnomon::select_top_k", _fake_select, lib=_library)
torch.library.register_fake("gnomon::detect_attend", lambda _, __, q, *___: _fake(q), lib=_library)
torch.library.register_fake("gnomon::select_blocks", _fake_blocks, lib=_library)
_library.impl("select_blocks", cpu.select_blocks, "CPU")
_library.impl("select_blocks", blocks_of_integers, "CUDA")
_library.impl("select_top_k", cpu.select_top_k, "CPU")
_library.impl("select_top_k", top_k_of_integers, "CUDA")
_library.impl("detect_attend", cpu.detect_attend, "CPU")
_library.impl("detect_attend", _detect_attend_gpu, "CUDA")
