"""Packed attention on GPUs: the launches of the Triton kernels. Needs Triton; ask `why_not` first.

Axes: T tokens of all sequences, S sequences, H query heads, G key heads, D head size, E size of the values.
"""

from math import e, log2
from typing import Any

import torch
import triton
from torch import Tensor

from gnomon.kernels import _triton
from gnomon.kernels._triton import Launch
from gnomon.kernels._triton_attention import delta_launch, rows, sizes
from gnomon.kernels._triton_attention import why_not as _why_not
from gnomon.kernels._triton_blocks import Blocks, blocks
from gnomon.kernels.packed_attention.gpu_kernels import forward_kernel, grad_key_kernel, grad_query_kernel


def why_not(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """Why the Triton kernels refuse these tensors; None when they take them."""
    return _why_not(q, v)


def forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, is_causal: bool, scale: float,
    block: Blocks | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(out, lse) as the operator has them. block: chosen for the device when None."""
    out, lse = q.new_empty(*q.shape[:2], v.shape[2]), q.new_empty(q.shape[:2], dtype=torch.float32)
    if out.numel():
        forward_launch(q, k, v, cu_seqlens, out, lse, max_seqlen, is_causal, scale, block=block).run()
    return out, lse


def forward_launch(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, out: Tensor, lse: Tensor, max_seqlen: int, is_causal: bool,
    scale: float, target: str | None = None, block: Blocks | None = None,
) -> Launch:  # fmt: skip
    """The launch behind `forward`. target: the device's when None."""
    target = target or _triton.target_of(q.device)
    block = block or blocks(target, q.dtype, max(q.shape[-1], v.shape[-1]), "forward")
    tiles = triton.cdiv(max_seqlen, block.queries)
    return Launch(
        forward_kernel,
        tiles * q.shape[1] * (cu_seqlens.numel() - 1),
        {
            **_loaded(q, k, v, cu_seqlens),
            "out": out,
            "lse": lse,
            "heads": q.shape[1],
            "scale": scale * log2(e),
            "tiles": tiles,
        },
        {**sizes(q, v, target), "M": block.queries, "N": block.keys, "CAUSAL": is_causal},
        block.num_warps,
        block.num_stages,
    )


def backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, out: Tensor,
    lse: Tensor, max_seqlen: int, is_causal: bool, scale: float, block: Blocks | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dq, dk, dv), the same bits at every call."""
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if q.numel() == 0 or v.numel() == 0:
        return dq.zero_(), dk.zero_(), dv.zero_()
    grad_out, lse = grad_out.contiguous(), lse.contiguous()
    delta = torch.empty_like(lse)
    delta_launch(grad_out, grad_lse, out, delta).run()
    for launch in backward_launches(
        grad_out, q, k, v, cu_seqlens, lse, delta, dq, dk, dv, max_seqlen, is_causal, scale, block=block
    ):
        launch.run()
    return dq, dk, dv


def backward_launches(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, lse: Tensor, delta: Tensor, dq: Tensor,
    dk: Tensor, dv: Tensor, max_seqlen: int, is_causal: bool, scale: float, target: str | None = None,
    block: Blocks | None = None,
) -> list[Launch]:  # fmt: skip
    """The launches that write dq, and dk and dv; these, grad_out, lse and delta are contiguous."""
    target = target or _triton.target_of(q.device)
    launches = []
    for kernel, name, heads, written in (
        (grad_query_kernel, "grad_query", q.shape[1], {"grad_q": dq}),
        (grad_key_kernel, "grad_key", k.shape[1], {"grad_k": dk, "grad_v": dv}),
    ):
        chosen = block or blocks(target, q.dtype, max(q.shape[-1], v.shape[-1]), name)
        tiles = triton.cdiv(max_seqlen, chosen.queries if name == "grad_query" else chosen.keys)
        launch = Launch(
            kernel,
            tiles * heads * (cu_seqlens.numel() - 1),
            {
                **_loaded(q, k, v, cu_seqlens),
                "grad_out": grad_out,
                "lse": lse,
                "delta": delta,
                **written,
                "heads": heads,
                "scale": scale,
                "tiles": tiles,
            },
            {**sizes(q, v, target), "M": chosen.queries, "N": chosen.keys, "CAUSAL": is_causal},
            chosen.num_warps,
            chosen.num_stages,
        )
        launches.append(launch)
    return launches


def _loaded(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> dict[str, Any]:
    """What kernels load, and its strides of token and head."""
    q, k, v = rows(q), rows(k), rows(v)
    strides = {f"{name}_strides": x.stride()[:2] for name, x in (("q", q), ("k", k), ("v", v))}
    repeats = q.shape[1] // k.shape[1]
    return {"q": q, "k": k, "v": v, "bounds": cu_seqlens.contiguous(), "repeats": repeats, **strides}
