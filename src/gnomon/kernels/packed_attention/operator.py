"""`torch.ops.gnomon.packed_attention` and its backward: schema, shapes, gradients, and who computes them.

    packed_attention(q, k, v, cu_seqlens, max_seqlen, is_causal, scale) -> (out, lse)
    packed_attention_backward(grad_out, grad_lse, q, k, v, cu_seqlens, out, lse, max_seqlen, is_causal, scale)
        -> (dq, dk, dv)

q: [T, H, D], k: [T, G, D], v: [T, G, E], any strides, one floating dtype; cu_seqlens: int64 [S + 1] on the device of q;
max_seqlen: at least the longest sequence. out: [T, H, E] contiguous in q's dtype; lse: [T, H] contiguous, float32
(float64 for float64), differentiable; grad_lse may be None. dq, dk, dv: contiguous.

CPU: `cpu.forward` and `cpu.backward`. CUDA: `gpu.forward(q, k, v, cu_seqlens, max_seqlen, is_causal, scale)` and
`gpu.backward(grad_out, grad_lse, q, k, v, cu_seqlens, out, lse, max_seqlen, is_causal, scale)` where
`gpu.why_not(q, k, v)` returns None, else the reference. Arguments are checked by the public function.
"""

import importlib
from importlib import util
from typing import Any

import torch
from torch import Tensor

from gnomon.kernels.packed_attention import cpu, reference

_LIBRARY = torch.library.Library("gnomon", "FRAGMENT")
_NAME, _BACKWARD = "packed_attention", "packed_attention_backward"

_LIBRARY.define(
    f"{_NAME}(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, int max_seqlen, bool is_causal, float scale)"
    " -> (Tensor, Tensor)"
)
_LIBRARY.define(
    f"{_BACKWARD}(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, Tensor out, "
    "Tensor lse, int max_seqlen, bool is_causal, float scale) -> (Tensor, Tensor, Tensor)"
)


def _fake(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape[0], q.shape[1], v.shape[2]), q.new_empty(q.shape[0], q.shape[1], dtype=wide)


def _fake_backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _cuda(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    gpu = _gpu()
    if gpu is None or gpu.why_not(q, k, v) is not None:
        return reference.packed_attention(q, k, v, cu_seqlens, is_causal, scale)
    found: tuple[Tensor, Tensor] = gpu.forward(q, k, v, cu_seqlens, max_seqlen, is_causal, scale)
    return found


def _cuda_backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, out: Tensor,
    lse: Tensor, max_seqlen: int, is_causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    gpu = _gpu()
    if gpu is None or gpu.why_not(q, k, v) is not None:
        return reference.backward(grad_out, grad_lse, q, k, v, cu_seqlens, out, lse, is_causal, scale)
    found: tuple[Tensor, Tensor, Tensor] = gpu.backward(
        grad_out, grad_lse, q, k, v, cu_seqlens, out, lse, max_seqlen, is_causal, scale
    )
    return found


def _gpu() -> Any:
    """The Triton kernels, where Triton is installed."""
    return importlib.import_module("gnomon.kernels.packed_attention.gpu") if util.find_spec("triton") else None


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens, max_seqlen, is_causal, scale = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, cu_seqlens, *output)
    ctx.problem = (max_seqlen, is_causal, scale)


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, cu_seqlens, out, lse = ctx.saved_tensors
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    found = torch.ops.gnomon.packed_attention_backward(grad_out, grad_lse, q, k, v, cu_seqlens, out, lse, *ctx.problem)
    return (*found, None, None, None, None)


_LIBRARY.impl(_NAME, cpu.forward, "CPU")
_LIBRARY.impl(_BACKWARD, cpu.backward, "CPU")
_LIBRARY.impl(_NAME, _cuda, "CUDA")
_LIBRARY.impl(_BACKWARD, _cuda_backward, "CUDA")
torch.library.register_fake(f"gnomon::{_NAME}", _fake, lib=_LIBRARY)
torch.library.register_fake(f"gnomon::{_BACKWARD}", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd(f"gnomon::{_NAME}", _backward, setup_context=_setup, lib=_LIBRARY)
