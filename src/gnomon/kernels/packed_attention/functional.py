"""`packed_attention`: arguments checked, the operator called.

Axes: T tokens of all sequences, S sequences, H query heads, G key heads, D head size, E size of the values.
"""

import math
from typing import Literal, overload

import torch
from torch import Tensor

from gnomon.kernels.packed_attention import operator as _registered  # noqa: F401 - registers the operators


@overload
def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int | None = ..., *, is_causal: bool = ...,
    scale: float | None = ..., return_lse: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip
@overload
def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int | None = ..., *, is_causal: bool = ...,
    scale: float | None = ..., return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def packed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention within sequences that lie one after another, without padding.

    q: [T, H, D]; k: [T, G, D]; v: [T, G, E]; H a multiple of G; one dtype of float64, float32, bfloat16 and float16.
    cu_seqlens: int32 or int64 [S + 1], increasing from 0 to T: sequence i is the tokens from cu_seqlens[i] up to
    cu_seqlens[i + 1]; [0] alone is the empty batch. max_seqlen: length of the longest sequence; looked up when None,
    which on a GPU waits for it. is_causal: a token sees itself and those before it. scale: 1 / sqrt(D) when None.

    Returns out [T, H, E], and with return_lse also the log of the sum of exp(score) [T, H], differentiable as well.
    Under autocast the inputs become its dtype, as for torch's own attention. Raises ValueError naming the argument.
    """
    if torch.is_autocast_enabled(q.device.type) and q.dtype != torch.float64:
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 3:
            raise ValueError(f"{name} must be [T, heads, size]; got shape {list(x.shape)}")
        if x.dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16) or x.dtype != q.dtype:
            raise ValueError(f"{name} must be floating point, of one dtype with q; got {x.dtype} beside {q.dtype}")
        if x.device != q.device:
            raise ValueError(f"{name} must be on the device of q, {q.device}; got {x.device}")
    tokens, heads, size = q.shape
    if k.shape[0] != tokens or k.shape[2] != size or size < 1:
        raise ValueError(f"k must be [T, G, D] with T and D >= 1 of q {list(q.shape)}; got {list(k.shape)}")
    if v.shape[:2] != k.shape[:2]:
        raise ValueError(f"v must have the tokens and heads of k {list(k.shape[:2])}; got {list(v.shape[:2])}")
    if k.shape[1] < 1 or heads % k.shape[1]:
        raise ValueError(f"k must have a number of heads that divides the {heads} of q; got {k.shape[1]}")
    scale = 1 / math.sqrt(size) if scale is None else scale
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite; got {scale}")
    bounds = checked_cu_seqlens(cu_seqlens, tokens, max_seqlen)
    if max_seqlen is None:
        max_seqlen = int(bounds.diff().max()) if bounds.shape[0] > 1 else 0
    out, lse = torch.ops.gnomon.packed_attention(q, k, v, bounds.to(q.device), max_seqlen, is_causal, scale)
    return (out, lse) if return_lse else out


def checked_cu_seqlens(cu_seqlens: Tensor, tokens: int, max_seqlen: int | None = None) -> Tensor:
    """cu_seqlens as int64. Raises ValueError unless it is [S + 1], increasing from 0 to `tokens`.

    On a GPU, and while a compiler traces, values are not looked at where max_seqlen is given: looking would wait for
    the device, or break the graph.
    """
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dtype not in (torch.int32, torch.int64):
        got = cu_seqlens.dtype if isinstance(cu_seqlens, Tensor) else type(cu_seqlens).__name__
        raise ValueError(f"cu_seqlens must be a tensor of int32 or int64; got {got}")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        raise ValueError(f"cu_seqlens must be [S + 1], beginning with 0; got shape {list(cu_seqlens.shape)}")
    if torch.compiler.is_compiling() or (max_seqlen is not None and cu_seqlens.device.type != "cpu"):
        return cu_seqlens.long()
    lengths = cu_seqlens.diff()
    if int(cu_seqlens[0]) != 0 or int(cu_seqlens[-1]) != tokens:
        raise ValueError(
            f"cu_seqlens must go from 0 to the {tokens} tokens of q; got {int(cu_seqlens[0])} to {int(cu_seqlens[-1])}"
        )
    if bool((lengths <= 0).any()):
        at = int((lengths <= 0).nonzero()[0])
        raise ValueError(
            f"cu_seqlens must increase; got {int(cu_seqlens[at])}, then {int(cu_seqlens[at + 1])} at {at + 1}. "
            "Leave empty sequences out"
        )
    if max_seqlen is not None and lengths.numel() and max_seqlen < int(lengths.max()):
        raise ValueError(f"max_seqlen must be at least the longest sequence, {int(lengths.max())}; got {max_seqlen}")
    return cu_seqlens.long()
