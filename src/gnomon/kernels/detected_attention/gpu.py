"""Attention over kept keys on GPUs, by Triton. Arguments and results: see `operator.py`; float64: the definition.

Axes: B batch, H query heads, G key and value heads, N queries, M keys, D head size.
"""

from collections.abc import Sequence
from math import e, log2
from typing import Any

import torch
from torch import Tensor

from gnomon.kernels import _triton_kept
from gnomon.kernels._triton import Launch
from gnomon.kernels._triton_attention import delta_launch, padded, rows, why_not
from gnomon.kernels._triton_kept import Kept, SeenBy, seen_by
from gnomon.kernels.detected_attention import cpu
from gnomon.kernels.detected_attention.gpu_tokens import forward_kernel, grad_key_kernel, grad_query_kernel

__all__ = ["block_backward", "block_forward", "token_backward", "token_forward", "why_not"]

_AT_ONCE = 64  # rows gathered together: enough loads in flight to hide memory


def token_forward(q: Tensor, k: Tensor, v: Tensor, index: Tensor, count: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(out, lse) of `sparse_attention`. Raises ValueError as `why_not` says."""
    if q.dtype == torch.float64:
        return cpu.token_forward(q, k, v, index, count, scale)
    _check(q, v)
    out, lse = q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=torch.float32)
    if out.numel():
        token_forward_launch(q, k, v, index, count, out, lse, scale).run()
    return out, lse


def token_forward_launch(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, count: Tensor, out: Tensor, lse: Tensor, scale: float
) -> Launch:
    """The launch behind `token_forward`."""
    return Launch(
        forward_kernel,
        count.numel(),
        {
            **_loaded(q, k, v),
            "index": index.contiguous(),
            "count": count.contiguous(),
            "out": out,
            "lse": lse,
            "heads": q.shape[1],
            "queries": q.shape[2],
            "kept": index.shape[3],
            "scale": scale * log2(e),
        },
        _sizes(q, v),
    )


def token_backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    index: Tensor, count: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dq, dk, dv) of `sparse_attention`, the same bits at every call. Raises ValueError as `why_not` says."""
    if q.dtype == torch.float64:
        return cpu.token_backward(grad_out, grad_lse, q, k, v, out, lse, index, count, scale)
    _check(q, v)
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if q.numel() == 0 or v.numel() == 0:
        return dq.zero_(), dk.zero_(), dv.zero_()
    grad_out, lse = grad_out.contiguous(), lse.contiguous()
    delta = torch.empty_like(lse)
    delta_launch(grad_out, grad_lse, out, delta).run()
    turned = seen_by(index, count, k.shape[1], k.shape[2])
    for launch in token_backward_launches(grad_out, q, k, v, lse, delta, dq, dk, dv, index, count, turned, scale):
        launch.run()
    return dq, dk, dv


def token_backward_launches(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, dq: Tensor, dk: Tensor, dv: Tensor,
    index: Tensor, count: Tensor, turned: SeenBy, scale: float,
) -> list[Launch]:  # fmt: skip
    """The launches that write dq, and dk and dv; these, grad_out, lse and delta are contiguous."""
    common = {**_loaded(q, k, v), "grad_out": grad_out, "lse": lse, "delta": delta, "scale": scale}
    common["queries"] = q.shape[2]
    to_queries = {"index": index.contiguous(), "count": count.contiguous(), "grad_q": dq, "heads": q.shape[1]}
    to_queries["kept"] = index.shape[3]
    to_keys = {**turned._asdict(), "grad_k": dk, "grad_v": dv, "heads": k.shape[1], "keys": k.shape[2]}
    return [
        Launch(grad_query_kernel, count.numel(), common | to_queries, _sizes(q, v)),
        Launch(grad_key_kernel, k.shape[0] * k.shape[1] * k.shape[2], common | to_keys, _sizes(q, v)),
    ]


def block_forward(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, count: Tensor, block: Sequence[int], is_causal: bool,
    key_mask: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(out, lse) of `block_sparse_attention`. Raises ValueError as `why_not` says."""
    if q.dtype == torch.float64:
        return cpu.block_forward(q, k, v, index, count, list(block), is_causal, key_mask, scale)
    _check(q, v)
    return _triton_kept.forward(q, k, v, kept(q, k, index, count, block, is_causal, key_mask), scale)


def block_backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    index: Tensor, count: Tensor, block: Sequence[int], is_causal: bool, key_mask: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dq, dk, dv) of `block_sparse_attention`, the same bits at every call. Raises ValueError as `why_not` says."""
    if q.dtype == torch.float64:
        return cpu.block_backward(
            grad_out, grad_lse, q, k, v, out, lse, index, count, list(block), is_causal, key_mask, scale
        )  # fmt: skip
    _check(q, v)
    seen = kept(q, k, index, count, block, is_causal, key_mask)
    return _triton_kept.backward(grad_out, grad_lse, q, k, v, out, lse, seen, scale)


def kept(
    q: Tensor, k: Tensor, index: Tensor, count: Tensor, block: Sequence[int], is_causal: bool, key_mask: Tensor | None
) -> Kept:
    """What `block_sparse_attention` sees, in the words of the kernels."""
    shift = k.shape[2] - q.shape[2] if is_causal else None
    mask = None if key_mask is None else key_mask[:, None, None, :]
    return Kept(index, count, (block[0], block[1]), shift, mask)


def _check(q: Tensor, v: Tensor) -> None:
    reason = why_not(q, v)
    if reason is not None:
        raise ValueError(f"q: {reason}")


def _loaded(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Any]:
    """What all kernels load, and its strides."""
    q, k, v = rows(q), rows(k), rows(v)
    strides = {f"{name}_strides": x.stride()[:3] for name, x in (("q", q), ("k", k), ("v", v))}
    return {"q": q, "k": k, "v": v, "repeats": q.shape[1] // k.shape[1], **strides}


def _sizes(q: Tensor, v: Tensor) -> dict[str, Any]:
    wide = padded(max(q.shape[-1], v.shape[-1]))
    return {
        "D": q.shape[-1],
        "DV": v.shape[-1],
        "BLOCK_D": padded(q.shape[-1]),
        "BLOCK_DV": padded(v.shape[-1]),
        "C": min(_AT_ONCE, 4096 // wide),
    }
