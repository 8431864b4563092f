"""`torch.ops.gnomon.quantized_topk_attention` and its backward: schema, shapes, gradients, and who computes them.

    quantized_topk_attention(q, k, v, mask, cu_seqlens, topk, bits, block, is_causal, scale) -> (out, lse, kept)
    quantized_topk_attention_backward(grad_out, q, k, v, mask, cu_seqlens, out, lse, kept, topk, block, is_causal,
        scale) -> (dq, dk, dv)

q: [B, H, N, D], k: [B, G, L, D], v: [B, G, L, E], any strides, one floating dtype; mask: bool that broadcasts to
[B, H, N, L], or None; cu_seqlens: int64 [S + 1] or None (then B = 1, no mask, N = L, sequences one after another). out:
[B, H, N, E] contiguous in q's dtype; lse: [B, H, N] float32 (float64 for float64), -inf where no key is visible, out is
zero there; kept: int32 [B, H, ceil(N / bq), min(ceil(topk / bk), ceil(L / bk))], chosen key blocks ascending, then -1.
The choice has no gradient: lse and kept are marked so, and gradients flow through the exact step alone.

CPU: `cpu.forward` and `cpu.backward`. CUDA: `gpu.forward(q, k, v, mask, cu_seqlens, topk, bits, block, is_causal,
scale)` and `gpu.backward(grad_out, q, k, v, mask, cu_seqlens, out, lse, kept, topk, block, is_causal, scale)` where
`gpu.why_not(q, k, v, mask, cu_seqlens, topk, bits, block)` returns None, else the reference.
Arguments are checked by the public function; here they are taken to be right.
"""

import importlib
from importlib import util
from typing import Any

import torch
from torch import Tensor

from gnomon.kernels.quantized_topk_attention import cpu, reference

_LIBRARY = torch.library.Library("gnomon", "FRAGMENT")
_NAME, _BACKWARD = "quantized_topk_attention", "quantized_topk_attention_backward"
_PROBLEM = "int topk, int bits, int[2] block, bool is_causal, float scale"

_LIBRARY.define(
    f"{_NAME}(Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor? cu_seqlens, {_PROBLEM}) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    f"{_BACKWARD}(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor? cu_seqlens, Tensor out, "
    "Tensor lse, Tensor kept, int topk, int[2] block, bool is_causal, float scale) -> (Tensor, Tensor, Tensor)"
)


def _fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    topk: int,
    bits: int,
    block: list[int],
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, queries, _ = q.shape
    bq, bk = block
    chosen = torch.sym_min(-(-topk // bk), (k.shape[2] + bk - 1) // bk)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return (
        q.new_empty(batch, heads, queries, v.shape[-1]),
        q.new_empty(batch, heads, queries, dtype=wide),
        q.new_empty(batch, heads, (queries + bq - 1) // bq, chosen, dtype=torch.int32),
    )


def _fake_backward(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _cuda(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, topk: int, bits: int,
    block: list[int], is_causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    gpu, size = _gpu(), (block[0], block[1])
    if gpu is None or gpu.why_not(q, k, v, mask, cu_seqlens, topk, bits, size) is not None:
        with torch.no_grad():
            return reference.quantized_topk_attention(q, k, v, mask, cu_seqlens, topk, bits, size, is_causal, scale)
    found: tuple[Tensor, Tensor, Tensor] = gpu.forward(q, k, v, mask, cu_seqlens, topk, bits, size, is_causal, scale)
    return found


def _cuda_backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, out: Tensor,
    lse: Tensor, kept: Tensor, topk: int, block: list[int], is_causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    gpu, size = _gpu(), (block[0], block[1])
    if gpu is None or gpu.why_not(q, k, v, mask, cu_seqlens, topk, 4, size) is not None:
        return reference.backward(grad_out, q, k, v, mask, cu_seqlens, kept, size, is_causal, scale)
    found: tuple[Tensor, Tensor, Tensor] = gpu.backward(
        grad_out, q, k, v, mask, cu_seqlens, out, lse, kept, topk, size, is_causal, scale
    )
    return found


def _gpu() -> Any:
    """The Triton kernels, where Triton is installed."""
    return importlib.import_module("gnomon.kernels.quantized_topk_attention.gpu") if util.find_spec("triton") else None


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    q, k, v, mask, cu_seqlens, topk, _, block, is_causal, scale = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(q, k, v, mask, cu_seqlens, *output)
    ctx.problem = (topk, block, is_causal, scale)


def _backward(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    found = torch.ops.gnomon.quantized_topk_attention_backward(grad_out, *ctx.saved_tensors, *ctx.problem)
    return (*found, *(None,) * 7)


_LIBRARY.impl(_NAME, cpu.forward, "CPU")
_LIBRARY.impl(_BACKWARD, cpu.backward, "CPU")
_LIBRARY.impl(_NAME, _cuda, "CUDA")
_LIBRARY.impl(_BACKWARD, _cuda_backward, "CUDA")
torch.library.register_fake(f"gnomon::{_NAME}", _fake, lib=_LIBRARY)
torch.library.register_fake(f"gnomon::{_BACKWARD}", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd(f"gnomon::{_NAME}", _backward, setup_context=_setup, lib=_LIBRARY)
