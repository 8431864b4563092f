"""The operator on CPUs: kernels in C++ for single keys in float32 (bf16 and fp16 are widened), else the reference."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gnomon.kernels._native import Kernels, parallel
from gnomon.kernels.quantized_topk_attention import reference

_INTS = ctypes.POINTER(ctypes.c_int64)
_POINTER = ctypes.c_void_p
KERNELS = Kernels(
    "quantized_topk_attention",
    Path(__file__).with_name("cpu.cpp"),
    {
        "topk_forward": [_POINTER] * 9 + [_INTS, _INTS, ctypes.c_float, _POINTER],
        "topk_backward": [_POINTER] * 11 + [_INTS, _INTS, ctypes.c_float, _POINTER],
    },
)


def why_not(q: Tensor, block: Sequence[int]) -> str | None:
    """Why the C++ kernels do not take the problem; None when they do. A missing compiler is told apart, once."""
    if q.dtype == torch.float64:
        return "float64 is computed by the reference"
    if tuple(block) != (1, 1):
        return "blocks of keys are chosen by the reference; on a CPU single keys are faster and exact"
    return None


def forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, topk: int, bits: int,
    block: Sequence[int], is_causal: bool, scale: float, isa: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(out, lse, kept) as `operator` says. isa: whose kernels; None for the best here."""
    library = KERNELS.get(isa) if why_not(q, block) is None else None
    if library is None:
        return reference.quantized_topk_attention(
            q, k, v, mask, cu_seqlens, topk, bits, (block[0], block[1]), is_causal, scale
        )
    batch, heads, queries, _ = q.shape
    q_, k_, v_ = (_rows(x) for x in (q, k, v))
    out = torch.empty(batch, heads, queries, v.shape[-1])
    lse = torch.empty(batch, heads, queries)
    kept = torch.empty(batch, heads, queries, min(topk, k.shape[2]), dtype=torch.int32)
    full = None if mask is None else mask.expand(batch, heads, queries, k.shape[2])
    counted = None if mask is None else mask.any(2).any(1).expand(batch, -1).contiguous()
    tensors = (q_, k_, v_, full, counted, cu_seqlens, out, lse, kept)
    shape = _shape(q_, k_, v_, cu_seqlens, kept, bits, is_causal)
    strides = _strides(q_, k_, v_, full)
    pointers = [None if x is None else x.data_ptr() for x in tensors]
    parallel(lambda counter: library.topk_forward(*pointers, shape, strides, scale, counter), shape[0] * shape[2])
    return out.to(q.dtype), lse, kept


def backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, out: Tensor,
    lse: Tensor, kept: Tensor, topk: int, block: Sequence[int], is_causal: bool, scale: float, isa: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dq, dk, dv), contiguous, as `operator` says. isa: whose kernels; None for the best here."""
    library = KERNELS.get(isa) if why_not(q, block) is None else None
    if library is None:
        return reference.backward(grad_out, q, k, v, mask, cu_seqlens, kept, (block[0], block[1]), is_causal, scale)
    q_, k_, v_ = (_rows(x) for x in (q, k, v))
    grad_, out_ = grad_out.float().contiguous(), out.float().contiguous()
    dq = torch.empty(q.shape)
    dk, dv = torch.zeros(k.shape), torch.zeros(v.shape)
    shape = _shape(q_, k_, v_, cu_seqlens, kept, 0, is_causal)
    strides = _strides(q_, k_, v_, None)
    tensors = (q_, k_, v_, cu_seqlens, grad_, out_, lse.contiguous(), kept.contiguous(), dq, dk, dv)
    pointers = [None if x is None else x.data_ptr() for x in tensors]
    parallel(lambda counter: library.topk_backward(*pointers, shape, strides, scale, counter), shape[0] * shape[2])
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _rows(x: Tensor) -> Tensor:
    """As float32 with rows of neighbouring numbers."""
    x = x.float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _shape(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, kept: Tensor, bits: int, is_causal: bool
) -> ctypes.Array[ctypes.c_int64]:
    """Sequences, H, G, N, L, D, E, columns of kept, bits, is_causal."""
    sequences = q.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    sizes = (sequences, q.shape[1], k.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3])
    return (ctypes.c_int64 * 10)(*sizes, kept.shape[-1], bits, is_causal)


def _strides(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> ctypes.Array[ctypes.c_int64]:
    """Of sequence, head and token for q, k and v, then all four of the mask."""
    found = [s for x in (q, k, v) for s in x.stride()[:3]]
    return (ctypes.c_int64 * 13)(*found, *(mask.stride() if mask is not None else (0,) * 4))
