"""Attention to the keys with the k highest low-bit scores: Peng et al. 2022 (arXiv 2208.03646), section 3.2, in torch.

1. Q and K of each head are rounded to b bits: x' = round(x (2^(b-1) - 1) / M), M = max |x| (b = 1: the sign of x).
2. Scores S' = Q' K'^T are integers, and exact here: sums of them stay below 2^53.
3. Each query keeps the k keys of highest S' among those that it may see; of equal scores the lower index.
4. Over the kept keys alone: s = q . k scale with the numbers as they were, softmax, the weighted sum of v.

Blocks widen step 3 for GPUs: `block` = (bq, bk) pools S' by its maximum over tiles of bq queries and bk keys, and a
tile of queries keeps the ceil(k / bk) best blocks of keys; step 4 then sees every key of them that the query may see.
(1, 1) is the paper.

Axes: B sequences, H query heads, G key heads (H is a multiple), N queries, L keys, D head size, E size of the values,
C query tiles, K key blocks, T tokens of all sequences together.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_LOWEST = -(2.0**62)  # below every integer score


class Attended(NamedTuple):
    """out: [B, H, N, E]. lse: [B, H, N], log of the sum of exp(s) over the kept keys; -inf and zeros where none is.

    kept: [B, H, C, min(ceil(k / bk), K)] int32, the chosen key blocks of each tile in ascending order, then -1.
    """

    out: Tensor
    lse: Tensor
    kept: Tensor


def quantize(x: Tensor, bits: int, counted: Tensor | None = None) -> Tensor:
    """Step 1. x: [..., L, D]; the scale M is one number for each [L, D]. Returns int32, at most 2^(b-1) - 1 in size.

    counted: [..., L] bool, the rows over which M is the maximum (None: all); padding should not set the scale. Rows
    beyond it are clamped. A tensor of zeros gives zeros. Halves are rounded to even, as torch.round does.
    """
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if bits == 1:
        return x.sign().int()
    largest = 2 ** (bits - 1) - 1
    rows = x.abs().amax(-1)
    if counted is not None:
        rows = rows.masked_fill(~counted, 0)
    peak = rows.amax(-1)[..., None, None] if rows.shape[-1] else rows.new_zeros(*rows.shape[:-1], 1, 1)
    # a peak so small that the factor would overflow counts as zero
    factor = torch.where(peak > largest * torch.finfo(x.dtype).tiny, largest / peak, 0)
    return (x * factor).round().clamp(-largest, largest).int()


def integer_scores(q_BHND: Tensor, k_BHLD: Tensor) -> Tensor:
    """Step 2: [B, H, N, L] float64 that holds exact integers. Arguments: quantized."""
    return q_BHND.double() @ k_BHLD.double().transpose(-1, -2)


def select(scores: Tensor, allowed: Tensor, topk: int, block: tuple[int, int] = (1, 1)) -> Tensor:
    """Step 3: [..., C, K] bool, which blocks are kept. scores, allowed: [..., N, L]."""
    scores = scores.masked_fill(~allowed, _LOWEST)
    queries, keys = scores.shape[-2:]
    bq, bk = block
    padded = functional.pad(scores, (0, -keys % bk, 0, -queries % bq), value=_LOWEST)
    pooled = padded.unflatten(-1, (-1, bk)).unflatten(-3, (-1, bq)).amax((-1, -3))
    count = min(-(-topk // bk), pooled.shape[-1])
    best = pooled.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    kept = torch.zeros_like(pooled, dtype=torch.bool).scatter_(-1, best, True)
    return kept & (pooled > _LOWEST)


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Step 4: (out, lse). k, v: one head for each of q. seen: [B, H, N, L] bool, kept and allowed. Differentiable."""
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~seen, -torch.inf)
    any_key = seen.any(-1, keepdim=True)
    weight = torch.where(any_key, torch.where(any_key, scores, 0).softmax(-1), 0)  # no NaN, in gradients neither
    return weight @ v, torch.where(any_key, scores, -torch.inf).logsumexp(-1)


def visible(
    mask: Tensor | None, is_causal: bool, batch: int, heads: int, queries: int, keys: int, device: torch.device
) -> Tensor:
    """[B, H, N, L] bool: which keys each query may see. mask: broadcasts to that; causal: key j is at most query i."""
    allowed = torch.ones(batch, heads, queries, keys, dtype=torch.bool, device=device)
    if is_causal:
        allowed = allowed.tril()
    return allowed if mask is None else allowed & mask


def counted_keys(mask: Tensor | None) -> Tensor | None:
    """[B or 1, L] bool: the keys that set the scale of K, those that `mask` [B, H, N, L] lets any query see."""
    return None if mask is None else mask.any(2).any(1)


def choose(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    topk: int,
    bits: int,
    block: tuple[int, int],
    is_causal: bool,
) -> tuple[Tensor, Tensor]:
    """Steps 1 to 3. Returns seen [B, H, N, L] bool (kept and visible) and kept as `Attended` has it.

    k: one head for each of q. cu_seqlens: as `quantized_topk_attention` takes it.
    """
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    if cu_seqlens is not None:
        count = min(topk, keys)
        seen = torch.zeros(batch, heads, queries, keys, dtype=torch.bool, device=q.device)
        kept = torch.full((batch, heads, queries, count), -1, dtype=torch.int32, device=q.device)
        bounds = cu_seqlens.tolist()
        for start, stop in itertools.pairwise(bounds):
            part, chosen = choose(q[:, :, start:stop], k[:, :, start:stop], None, None, topk, bits, block, is_causal)
            seen[:, :, start:stop, start:stop] = part
            kept[:, :, start:stop, : chosen.shape[-1]] = torch.where(chosen >= 0, chosen + start, -1)
        return seen, kept
    allowed = visible(mask, is_causal, batch, heads, queries, keys, q.device)
    counted = counted_keys(mask)
    if counted is not None:
        counted = counted[:, None, :].expand(batch, heads, keys)
    scores = integer_scores(quantize(q, bits), quantize(k, bits, counted))
    chosen = select(scores, allowed, topk, block)
    wide = chosen.repeat_interleave(block[0], -2)[..., :queries, :].repeat_interleave(block[1], -1)[..., :keys]
    blocks = chosen.shape[-1]
    number = torch.arange(blocks, device=q.device).expand(chosen.shape)
    order = torch.where(chosen, number, blocks).sort(-1).values[..., : min(-(-topk // block[1]), blocks)]
    return wide & allowed, torch.where(order < blocks, order, -1).int()


def quantized_topk_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    topk: int,
    bits: int,
    block: tuple[int, int],
    is_causal: bool,
    scale: float,
) -> Attended:
    """All steps, dense. q: [B, H, N, D], k: [B, G, L, D], v: [B, G, L, E]; mask: bool, broadcasts to [B, H, N, L].

    cu_seqlens: [S + 1], or None; with it B is 1, there is no mask, N = L = T, and tokens cu_seqlens[i] up to
    cu_seqlens[i + 1] are a sequence of their own, with its own scales; kept then counts keys from the first of T.
    float64 is computed as such, everything narrower in float32. Differentiable by q, k and v.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    group = q.shape[1] // k.shape[1]
    q_, k_, v_ = (x.to(wide) for x in (q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)))
    with torch.no_grad():
        seen, kept = choose(q_, k_, mask, cu_seqlens, topk, bits, block, is_causal)
    out, lse = attend(q_, k_, v_, seen, scale)
    return Attended(out.to(q.dtype), lse, kept)


def chosen_keys(
    kept: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, queries: int, keys: int, block: tuple[int, int],
    is_causal: bool,
) -> Tensor:  # fmt: skip
    """[B, H, N, L] bool: the keys that a stored choice stands for."""
    batch, heads, tiles, _ = kept.shape
    blocks = -(-keys // block[1])
    chosen = torch.zeros(batch, heads, tiles, blocks + 1, dtype=torch.bool, device=kept.device)
    chosen = chosen.scatter_(-1, torch.where(kept >= 0, kept, blocks).long(), True)[..., :blocks]
    wide = chosen.repeat_interleave(block[0], -2)[..., :queries, :].repeat_interleave(block[1], -1)[..., :keys]
    return wide & visible(mask, is_causal and cu_seqlens is None, batch, heads, queries, keys, kept.device)


def backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    kept: Tensor,
    block: tuple[int, int],
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) of `quantized_topk_attention` through the exact step, for the choice `kept`."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    seen = chosen_keys(kept, mask, cu_seqlens, q.shape[2], k.shape[2], block, is_causal)
    groups = (k.shape[1], q.shape[1] // k.shape[1])
    q_, k_, v_, grad_ = (x.to(wide) for x in (q, k, v, grad_out))
    k_, v_ = (x.repeat_interleave(groups[1], 1) for x in (k_, v_))
    scores = (q_ @ k_.transpose(-1, -2) * scale).masked_fill(~seen, -torch.inf)
    weight = torch.where(seen.any(-1, keepdim=True), scores, 0).softmax(-1) * seen
    grad_weight = grad_ @ v_.transpose(-1, -2)
    grad_scores = weight * (grad_weight - (grad_weight * weight).sum(-1, keepdim=True)) * scale
    dk, dv = grad_scores.transpose(-1, -2) @ q_, weight.transpose(-1, -2) @ grad_
    dk, dv = (x.unflatten(1, groups).sum(2) for x in (dk, dv))
    return (grad_scores @ k_).to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)
