"""Quantized top-k attention by blocks of keys on GPUs, by Triton. Ask `why_not` first; float64 goes to the reference.

Peng et al. 2022 (arXiv 2208.03646), section 3.2, with the pooling of `reference.py`: one kernel multiplies the rounded
operands as int8 on tensor cores and keeps only the largest score of each block of queries and keys; the blocks are then
ranked, and attention over them is that of `_triton_kept`.
Axes: B sequences, H query heads, G key heads, N queries, L keys, D head size, C query tiles, U key blocks.
"""

# mypy: allow-incomplete-defs
# only constexpr parameters of a kernel are annotated: to Triton, any other annotation is the type of an argument

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnomon.kernels import _triton_kept
from gnomon.kernels._triton import Launch
from gnomon.kernels._triton_attention import padded
from gnomon.kernels._triton_attention import why_not as _why_not
from gnomon.kernels._triton_kept import Kept
from gnomon.kernels.quantized_topk_attention import reference

LEAST_BLOCK = 16  # what tensor cores take; smaller blocks are mostly padding
MOST_BITS = 8
_LOWEST = -(2**31)  # below every score


def why_not(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, topk: int, bits: int,
    block: tuple[int, int],
) -> str | None:  # fmt: skip
    """Why the Triton kernels refuse these arguments; None when they take them."""
    reason = _why_not(q, v)
    if reason is not None:
        return reason
    if cu_seqlens is not None:
        return "the Triton kernels take padded batches; packed ones go to the reference"
    if min(block) < LEAST_BLOCK:
        return f"the Triton kernels choose blocks of at least {LEAST_BLOCK} queries and keys; got {block}"
    if bits > MOST_BITS:
        return f"the Triton kernels multiply integers of up to {MOST_BITS} bits; got {bits}"
    return None


@triton.jit
def pool_kernel(
    q, k, mask, pooled,
    mask_strides,
    heads, repeats, queries, keys, tiles, key_blocks,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, LOWEST: tl.constexpr,
):  # fmt: skip
    """pooled[b, h, tile, key block]: the largest q . k, in whole numbers, that may be seen there; LOWEST where none.

    q [B, H, N, D], k [B, G, L, D]: int8, contiguous.
    """
    tile, head = tl.program_id(0) % tiles, tl.program_id(0) // tiles % heads
    batch = (tl.program_id(0) // tiles // heads).to(tl.int64)
    feature = tl.arange(0, BLOCK_D)
    q_start = (batch * heads + head) * queries
    k_start = (batch * (heads // repeats) + head // repeats) * keys
    if mask is not None:
        mask += batch * mask_strides[0] + head.to(tl.int64) * mask_strides[1]
    for number in range(key_blocks):
        best = tl.full([M], LOWEST, tl.int32)
        for q_part in range(0, BLOCK_Q, M):  # a block may be larger than what one product takes
            within = q_part + tl.arange(0, M)
            query = tile * BLOCK_Q + within
            inside = (within < BLOCK_Q) & (query < queries)
            at = q + (q_start + query)[:, None] * D + feature[None, :]
            q_MD = tl.load(at, mask=inside[:, None] & (feature[None, :] < D), other=0)
            for k_part in range(0, BLOCK_K, N):
                part = k_part + tl.arange(0, N)
                key = number * BLOCK_K + part
                key_inside = (part < BLOCK_K) & (key < keys)
                at = k + (k_start + key)[:, None] * D + feature[None, :]
                k_ND = tl.load(at, mask=key_inside[:, None] & (feature[None, :] < D), other=0)
                score_MN = tl.dot(q_MD, k_ND.T, out_dtype=tl.int32)
                seen = inside[:, None] & key_inside[None, :]
                if CAUSAL:
                    seen = seen & (key[None, :] <= query[:, None])
                if mask is not None:
                    at = query.to(tl.int64)[:, None] * mask_strides[2] + key.to(tl.int64)[None, :] * mask_strides[3]
                    seen = seen & (tl.load(mask + at, mask=seen, other=0) != 0)
                best = tl.maximum(best, tl.max(tl.where(seen, score_MN, LOWEST), 1))
        tl.store(pooled + tl.program_id(0).to(tl.int64) * key_blocks + number, tl.max(best, 0))


def forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, topk: int, bits: int,
    block: tuple[int, int], is_causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(out, lse, kept) as the operator has them. Raises ValueError as `why_not` says."""
    reason = why_not(q, k, v, mask, cu_seqlens, topk, bits, block)
    if reason is not None:
        raise ValueError(f"q: {reason}")
    chosen = choose(q, k, mask, topk, bits, block, is_causal)
    out, lse = _triton_kept.forward(q, k, v, _kept(chosen, mask, block, is_causal), scale)
    return out, lse, chosen


def backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, out: Tensor,
    lse: Tensor, kept: Tensor, topk: int, block: tuple[int, int], is_causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dq, dk, dv) through the exact step for the choice `kept`, the same bits at every call."""
    reason = why_not(q, k, v, mask, cu_seqlens, topk, MOST_BITS, block)
    if reason is not None:
        raise ValueError(f"q: {reason}")
    seen = _kept(kept, mask, block, is_causal)
    return _triton_kept.backward(grad_out, None, q, k, v, out, lse, seen, scale)


def choose(
    q: Tensor, k: Tensor, mask: Tensor | None, topk: int, bits: int, block: tuple[int, int], is_causal: bool
) -> Tensor:
    """int32 [B, H, C, min(ceil(topk / bk), U)]: the key blocks that each tile keeps, ascending, then -1.

    As `reference.choose`: by the largest score of a block; of equal ones the lower number.
    """
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    tiles, key_blocks = triton.cdiv(queries, block[0]), triton.cdiv(keys, block[1])
    count = min(triton.cdiv(topk, block[1]), key_blocks)
    pooled = torch.full((batch, heads, tiles, key_blocks), _LOWEST, dtype=torch.int32, device=q.device)
    if pooled.numel() == 0:
        return pooled[..., :count]
    counted = reference.counted_keys(mask)
    if counted is not None:
        counted = counted[:, None, :].expand(k.shape[:3])
    q8, k8 = (reference.quantize(x, bits, rows).to(torch.int8).contiguous() for x, rows in ((q, None), (k, counted)))
    pool_launch(q8, k8, pooled, mask, block, is_causal).run()
    # one number that orders by score and then by place: ranks are the same however a sort breaks ties
    place = torch.arange(key_blocks, device=q.device)
    rank = pooled.long() * key_blocks - place
    best = rank.topk(count, -1).indices
    best = best.masked_fill(pooled.gather(-1, best) == _LOWEST, key_blocks).sort(-1).values
    return best.masked_fill(best == key_blocks, -1).int()


def pool_launch(
    q: Tensor, k: Tensor, pooled: Tensor, mask: Tensor | None, block: tuple[int, int], is_causal: bool
) -> Launch:
    """The launch that fills pooled [B, H, C, U]. q, k: int8, contiguous."""
    batch, heads, queries, size = q.shape
    sides = (min(64, triton.next_power_of_2(side)) for side in block)
    view = None if mask is None else mask.expand(batch, heads, queries, k.shape[2]).view(torch.uint8)
    return Launch(
        pool_kernel,
        batch * heads * pooled.shape[2],
        {
            "q": q,
            "k": k,
            "mask": view,
            "pooled": pooled,
            "mask_strides": (0, 0, 0, 0) if view is None else view.stride(),
            "heads": heads,
            "repeats": heads // k.shape[1],
            "queries": queries,
            "keys": k.shape[2],
            "tiles": pooled.shape[2],
            "key_blocks": pooled.shape[3],
        },
        {
            "D": size,
            "BLOCK_D": max(32, padded(size)),  # products of int8 take 32 features at a time
            "BLOCK_Q": block[0],
            "BLOCK_K": block[1],
            **dict(zip("MN", sides, strict=True)),
            "CAUSAL": is_causal,
            "LOWEST": _LOWEST,
        },
    )


def _kept(chosen: Tensor, mask: Tensor | None, block: tuple[int, int], is_causal: bool) -> Kept:
    """The choice in the words of the kernels; its bound is key j <= query i."""
    return Kept(chosen, (chosen >= 0).sum(-1, dtype=torch.int32), block, 0 if is_causal else None, mask)
