"""`quantized_topk_attention`: arguments checked, the operator called, recall and kept attention mass on request.

Axes: B sequences, H query heads, G key heads, N queries, L keys, D head size, E size of the values, T packed tokens.
"""

import math
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from gnomon.kernels.quantized_topk_attention import operator as _registered  # noqa: F401 - registers the operators
from gnomon.kernels.quantized_topk_attention import reference

MOST_BITS = 16
_STAT_ROWS = 2**22  # scores held at once while statistics are taken


class Stats(NamedTuple):
    """What a choice of keys kept, over the queries that see at least one key.

    recall: share of the kept keys that an exact choice of as many would keep. kept_mass, best_mass: the share of the
    dense softmax that lies on the kept keys, and on as many exact ones; means over queries. empty_rows: [B, H, N] bool,
    the queries that see no key, whose output is zeros by definition.
    """

    recall: float
    kept_mass: float
    best_mass: float
    empty_rows: Tensor


@overload
def quantized_topk_attention(
    q: Tensor, k: Tensor, v: Tensor, topk: int = ..., bits: int = ..., mask: Tensor | None = ..., *,
    is_causal: bool = ..., scale: float | None = ..., block: tuple[int, int] = ...,
    return_stats: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip
@overload
def quantized_topk_attention(
    q: Tensor, k: Tensor, v: Tensor, topk: int = ..., bits: int = ..., mask: Tensor | None = ..., *,
    is_causal: bool = ..., scale: float | None = ..., block: tuple[int, int] = ..., return_stats: Literal[True],
) -> tuple[Tensor, Stats]: ...  # fmt: skip
def quantized_topk_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    topk: int = 30,
    bits: int = 4,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    block: tuple[int, int] = (1, 1),
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, Stats]:
    """Softmax attention of each query to the `topk` keys whose `bits`-bit scores are highest.

    q: [B, H, N, D]; k: [B, G, L, D]; v: [B, G, L, E]; H a multiple of G; one dtype of float64, float32, bfloat16 and
    float16. mask: bool that broadcasts to [B, H, N, L], True where a query may see a key. is_causal: key j is seen by
    queries from j on. scale: of the exact scores, 1 / sqrt(D) when None. block: (queries, keys) that are chosen
    together, see `reference`; (1, 1) is the paper.

    Returns out [B, H, N, E], and `Stats` when return_stats (which computes all scores once more, by rows). A query that
    sees fewer keys than topk uses all of them; one that sees none gets zeros, and Stats.empty_rows says which.
    Q and K are rounded per head with the largest magnitude as scale: over all queries, and over the keys that the mask
    lets any query see. Gradients flow through the chosen keys only. Raises ValueError naming the argument.
    Source: Peng et al. 2022, arXiv 2208.03646, section 3.2.
    """
    _check(q, k, v, topk, bits, block)
    batch, heads, queries, size = q.shape
    if mask is not None:
        wanted = (batch, heads, queries, k.shape[2])
        if mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be bool, True where a key is seen; got {mask.dtype}. Compare it with zero first"
            )
        if mask.dim() > 4 or any(m not in (1, w) for m, w in zip(mask.shape[::-1], wanted[::-1], strict=False)):
            raise ValueError(f"mask must broadcast to [B, H, N, L] = {list(wanted)}; got {list(mask.shape)}")
        mask = mask.to(q.device)[(None,) * (4 - mask.dim())]
    scale = _scale(scale, size)
    out, lse, kept = torch.ops.gnomon.quantized_topk_attention(
        q, k, v, mask, None, topk, bits, list(block), is_causal, scale
    )
    if not return_stats:
        return out
    return out, _stats(q.detach(), k.detach(), mask, lse, kept, block, is_causal, scale)


def quantized_topk_attention_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    topk: int = 30,
    bits: int = 4,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The same for sequences laid one after another, without padding: each attends within itself, with its own scales.

    q: [T, H, D], k: [T, G, D], v: [T, G, E]; cu_seqlens: int32 or int64 [S + 1], where each sequence begins, and T at
    the end. Returns [T, H, E]. Raises ValueError naming the argument.
    """
    from gnomon.kernels.packed_attention import checked_cu_seqlens

    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 3:
            raise ValueError(f"{name} must be [T, heads, size]; got shape {list(x.shape)}")
    if k.shape[0] != q.shape[0]:
        raise ValueError(f"k must have the {q.shape[0]} tokens of q; got {k.shape[0]}")
    q_, k_, v_ = (x.transpose(0, 1)[None] for x in (q, k, v))
    _check(q_, k_, v_, topk, bits, (1, 1))
    bounds = checked_cu_seqlens(cu_seqlens, q.shape[0]).to(q.device)
    out = torch.ops.gnomon.quantized_topk_attention(
        q_, k_, v_, None, bounds, topk, bits, [1, 1], is_causal, _scale(scale, q.shape[-1])
    )[0]
    return out[0].transpose(0, 1)


def _check(q: Tensor, k: Tensor, v: Tensor, topk: int, bits: int, block: tuple[int, int]) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 4:
            raise ValueError(f"{name} must be [B, heads, tokens, size]; got shape {list(x.shape)}")
        if x.dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16) or x.dtype != q.dtype:
            raise ValueError(f"{name} must be floating point, of one dtype with q; got {x.dtype} beside {q.dtype}")
        if x.device != q.device:
            raise ValueError(f"{name} must be on the device of q, {q.device}; got {x.device}")
    if k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3] or q.shape[3] < 1:
        raise ValueError(f"k must be [B, G, L, D] with B and D >= 1 of q {list(q.shape)}; got {list(k.shape)}")
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(f"v must have the sequences, heads and keys of k {list(k.shape[:3])}; got {list(v.shape[:3])}")
    if k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        raise ValueError(f"k must have a number of heads that divides the {q.shape[1]} of q; got {k.shape[1]}")
    if topk < 1:
        raise ValueError(f"topk must be at least 1 key; got {topk}")
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"bits must be from 1 to {MOST_BITS}; got {bits}")
    if len(block) != 2 or min(block) < 1:
        raise ValueError(f"block must be (queries, keys), both at least 1; got {block}")


def _scale(scale: float | None, size: int) -> float:
    scale = 1 / math.sqrt(size) if scale is None else scale
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number; got {scale}")
    return scale


def _stats(
    q: Tensor, k: Tensor, mask: Tensor | None, lse: Tensor, kept: Tensor, block: tuple[int, int], is_causal: bool,
    scale: float,
) -> Stats:  # fmt: skip
    """Compares the choice with the dense scores, a slice of queries at a time."""
    batch, heads, queries, keys = *q.shape[:3], k.shape[2]
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    k_ = k.to(wide).repeat_interleave(heads // k.shape[1], 1)
    rows = max(_STAT_ROWS // max(batch * heads * keys, 1) // block[0], 1) * block[0]
    found = chosen = mass = best = 0.0
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        part = mask if mask is None or mask.shape[2] == 1 else mask[:, :, start:stop]
        allowed = torch.ones(stop - start, keys, dtype=torch.bool, device=q.device)
        if is_causal:
            allowed = allowed.tril(start)
        allowed = (allowed if part is None else allowed & part).expand(batch, heads, stop - start, keys)
        tiles = kept[:, :, start // block[0] : -(-stop // block[0])]
        seen = reference.chosen_keys(tiles, None, None, stop - start, keys, block, False) & allowed
        scores = (q[:, :, start:stop].to(wide) @ k_.transpose(-1, -2) * scale).masked_fill(~allowed, -torch.inf)
        weight = scores.softmax(-1).nan_to_num(0)
        # the exact choice of as many keys: those among the first count in descending order of the scores
        rank = scores.sort(dim=-1, descending=True, stable=True).indices.argsort(-1)
        exact = rank < seen.sum(-1, keepdim=True)
        found += float((seen & exact).sum())
        chosen += float(seen.sum())
        mass += float((weight * seen).sum())
        best += float((weight * exact).sum())
    empty = lse == -torch.inf
    live = float((~empty).sum())
    if not live:
        return Stats(1.0, 1.0, 1.0, empty)
    return Stats(found / chosen, mass / live, best / live, empty)
