"""The operator on CPUs: C++ kernels in float32 (bf16 and fp16 are widened), the reference for float64."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from gnomon.kernels._native import Kernels, parallel
from gnomon.kernels.packed_attention import reference

_INTS = ctypes.POINTER(ctypes.c_int64)
_POINTER = ctypes.c_void_p
KERNELS = Kernels(
    "packed_attention",
    Path(__file__).with_name("cpu.cpp"),
    {
        "packed_forward": [_POINTER] * 6 + [_INTS, _INTS, ctypes.c_float, _POINTER],
        "packed_backward": [_POINTER] * 11 + [_INTS, _INTS, ctypes.c_float, _POINTER],
    },
)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    is_causal: bool,
    scale: float,
    isa: str | None = None,
) -> tuple[Tensor, Tensor]:
    """(out, lse) as `operator` says. isa: whose kernels; None for the best here."""
    library = None if q.dtype == torch.float64 else KERNELS.get(isa)
    if library is None:
        return reference.packed_attention(q, k, v, cu_seqlens, is_causal, scale)
    q_, k_, v_ = (_rows(x) for x in (q, k, v))
    out = torch.empty(q.shape[0], q.shape[1], v.shape[2])
    lse = torch.empty(q.shape[:2])
    shape, strides = _shape(q, k, v, cu_seqlens, is_causal, max_seqlen), _strides(q_, k_, v_)
    pointers = [x.data_ptr() for x in (q_, k_, v_, cu_seqlens, out, lse)]
    parallel(lambda counter: library.packed_forward(*pointers, shape, strides, scale, counter), shape[0] * shape[2])
    return out.to(q.dtype), lse


def backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, out: Tensor,
    lse: Tensor, max_seqlen: int, is_causal: bool, scale: float, isa: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dq, dk, dv) as `operator` says. isa: whose kernels; None for the best here."""
    library = None if q.dtype == torch.float64 else KERNELS.get(isa)
    if library is None:
        return reference.backward(grad_out, grad_lse, q, k, v, cu_seqlens, out, lse, is_causal, scale)
    q_, k_, v_ = (_rows(x) for x in (q, k, v))
    grad_, out_, lse_ = (x.float().contiguous() for x in (grad_out, out, lse))
    grad_lse = None if grad_lse is None else grad_lse.float().contiguous()
    dq, dk, dv = (torch.empty(x.shape) for x in (q, k, v))
    shape, strides = _shape(q, k, v, cu_seqlens, is_causal, max_seqlen), _strides(q_, k_, v_)
    tensors = (grad_, grad_lse, q_, k_, v_, cu_seqlens, out_, lse_, dq, dk, dv)
    pointers = [None if x is None else x.data_ptr() for x in tensors]
    parallel(lambda counter: library.packed_backward(*pointers, shape, strides, scale, counter), shape[0] * shape[2])
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _rows(x: Tensor) -> Tensor:
    """As float32 with rows of neighbouring numbers."""
    x = x.float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _shape(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, is_causal: bool, max_seqlen: int
) -> ctypes.Array[ctypes.c_int64]:
    """S, H, G, D, E, is_causal, the longest sequence."""
    sizes = (cu_seqlens.shape[0] - 1, q.shape[1], k.shape[1], q.shape[2], v.shape[2], is_causal, max_seqlen)
    return (ctypes.c_int64 * 7)(*sizes)


def _strides(q: Tensor, k: Tensor, v: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """Of token and head for q, k and v."""
    return (ctypes.c_int64 * 6)(*(s for x in (q, k, v) for s in x.stride()[:2]))
