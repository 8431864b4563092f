"""Attention over kept blocks of keys in Triton: forward, and a backward of two kernels without atomics. Needs Triton.

Each block of queries has its own ascending list of blocks of keys; masks hold key by key inside of them. For dK and dV
the lists are turned around first (`seen_by`), so that a program owns the keys whose gradient it writes.
Axes: B batch, H query heads, G key heads, N queries, L keys, D features, T query blocks, U key blocks, K kept blocks;
in kernels M queries of a tile, N keys of a tile.
"""

# mypy: allow-incomplete-defs
# only constexpr parameters of a kernel are annotated: to Triton, any other annotation is the type of an argument

from collections.abc import Mapping
from dataclasses import dataclass
from math import e, log2
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnomon.kernels import _triton
from gnomon.kernels._triton import Launch
from gnomon.kernels._triton_attention import (
    LOG2E,
    delta_launch,
    load_lse,
    load_rows,
    logsumexp,
    normalized,
    online_softmax,
    rows,
    sizes,
    store_rows,
)
from gnomon.kernels._triton_blocks import Blocks, blocks


@dataclass(frozen=True)
class Kept:
    """What is seen. index: int32 [B, H, T, K], its first count [B, H, T] entries numbers of key blocks, ascending.

    block: queries and keys of a block. shift: query i sees keys j <= i + shift; None for no such bound. mask: bool that
    broadcasts to [B, H, N, L] by strides of zero, True where a key may be seen, or None.
    """

    index: Tensor
    count: Tensor
    block: tuple[int, int]
    shift: int | None = None
    mask: Tensor | None = None


class SeenBy(NamedTuple):
    """owner: int32, numbers (query head of the group) * T + query block; those of key block j are from begin[j] on.

    begin: int64 [B G U + 1]. Both on the device; their sizes do not depend on the values.
    """

    owner: Tensor
    begin: Tensor


def seen_by(index: Tensor, count: Tensor, groups: int, keys: int) -> SeenBy:
    """For each key block of each key head the query blocks that keep it, in ascending order of head and block."""
    batch, heads, tiles, kept = index.shape
    repeats = heads // groups
    device = index.device
    head = torch.arange(heads, device=device)[:, None]
    owner = (head % repeats) * tiles + torch.arange(tiles, device=device)  # [H, T]
    first = torch.arange(batch, device=device)[:, None, None] * groups + (head // repeats)  # [B, H, 1]
    at = (first[..., None] * keys + index.long()) * (repeats * tiles) + owner[..., None]
    is_kept = torch.arange(kept, device=device) < count[..., None]
    total = batch * groups * keys
    at = at.masked_fill(~is_kept, total * repeats * tiles).flatten().sort().values
    begin = torch.searchsorted(at, torch.arange(total + 1, device=device) * (repeats * tiles))
    return SeenBy((at % (repeats * tiles)).int(), begin)


@triton.jit
def visible(
    mask, mask_strides, query, inside, key, key_inside, shift, HAS_SHIFT: tl.constexpr, TRANSPOSED: tl.constexpr
):
    """[queries, keys] or [keys, queries]: whether each pair exists, is not after its bound, and is not masked."""
    if TRANSPOSED:
        query, inside, key, key_inside = query[None, :], inside[None, :], key[:, None], key_inside[:, None]
    else:
        query, inside, key, key_inside = query[:, None], inside[:, None], key[None, :], key_inside[None, :]
    seen = inside & key_inside
    if HAS_SHIFT:
        seen = seen & (key <= query + shift)
    if mask is not None:
        at = query.to(tl.int64) * mask_strides[2] + key.to(tl.int64) * mask_strides[3]
        seen = seen & (tl.load(mask + at, mask=seen, other=0) != 0)
    return seen


@triton.jit
def forward_kernel(
    q, k, v, mask, index, count, out, lse,
    q_strides, k_strides, v_strides, mask_strides,  # of batch, head and token (and key)
    heads, repeats, queries, keys, kept, tiles, shift, scale,  # log2(e) is in the scale
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, M: tl.constexpr, N: tl.constexpr, HAS_SHIFT: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    PARTS_Q: tl.constexpr = (BLOCK_Q + M - 1) // M
    PARTS_K: tl.constexpr = (BLOCK_K + N - 1) // N
    program = tl.program_id(0)
    tile, head = program // PARTS_Q % tiles, program // PARTS_Q // tiles % heads
    batch = (program // PARTS_Q // tiles // heads).to(tl.int64)
    within = program % PARTS_Q * M + tl.arange(0, M)
    query = tile * BLOCK_Q + within
    inside = (within < BLOCK_Q) & (query < queries)
    wide, key_head = head.to(tl.int64), (head // repeats).to(tl.int64)
    q_row = batch * q_strides[0] + wide * q_strides[1] + query.to(tl.int64) * q_strides[2]
    q_MD = load_rows(q, q_row, inside, D, BLOCK_D, WIDEN)
    if mask is not None:
        mask += batch * mask_strides[0] + wide * mask_strides[1]
    row = (batch * heads + head) * tiles + tile
    max_M = tl.full([M], float("-inf"), tl.float32)
    sum_M = tl.zeros([M], tl.float32)
    out_MD = tl.zeros([M, BLOCK_DV], tl.float32)
    for i in range(tl.load(count + row) * PARTS_K):
        part = i % PARTS_K * N + tl.arange(0, N)
        key = tl.load(index + row * kept + i // PARTS_K) * BLOCK_K + part
        key_inside = (part < BLOCK_K) & (key < keys)
        wide_key = key.to(tl.int64)
        k_row = batch * k_strides[0] + key_head * k_strides[1] + wide_key * k_strides[2]
        k_ND = load_rows(k, k_row, key_inside, D, BLOCK_D, WIDEN)
        score_MN = tl.dot(q_MD, k_ND.T, input_precision=PRECISION) * scale
        seen = visible(mask, mask_strides, query, inside, key, key_inside, shift, HAS_SHIFT, False)
        score_MN = tl.where(seen, score_MN, float("-inf"))
        weight_MN, decay_M, max_M, sum_M = online_softmax(score_MN, max_M, sum_M)
        v_row = batch * v_strides[0] + key_head * v_strides[1] + wide_key * v_strides[2]
        v_ND = load_rows(v, v_row, key_inside, DV, BLOCK_DV, WIDEN)
        out_MD = tl.dot(weight_MN.to(v_ND.dtype), v_ND, out_MD * decay_M[:, None], input_precision=PRECISION)
    out_row = (batch * heads + head) * queries + query
    store_rows(out, normalized(out_MD, sum_M), out_row * DV, inside, DV, BLOCK_DV)
    tl.store(lse + out_row, logsumexp(max_M, sum_M), mask=inside)


@triton.jit
def grad_query_kernel(
    q, k, v, mask, index, count, grad_out, lse, delta, grad_q,
    q_strides, k_strides, v_strides, mask_strides,
    heads, repeats, queries, keys, kept, tiles, shift, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, M: tl.constexpr, N: tl.constexpr, HAS_SHIFT: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """dQ = scale dS K, dS = P (dO V^T - delta), P computed again from lse."""
    PARTS_Q: tl.constexpr = (BLOCK_Q + M - 1) // M
    PARTS_K: tl.constexpr = (BLOCK_K + N - 1) // N
    program = tl.program_id(0)
    tile, head = program // PARTS_Q % tiles, program // PARTS_Q // tiles % heads
    batch = (program // PARTS_Q // tiles // heads).to(tl.int64)
    within = program % PARTS_Q * M + tl.arange(0, M)
    query = tile * BLOCK_Q + within
    inside = (within < BLOCK_Q) & (query < queries)
    wide, key_head = head.to(tl.int64), (head // repeats).to(tl.int64)
    q_row = batch * q_strides[0] + wide * q_strides[1] + query.to(tl.int64) * q_strides[2]
    out_row = (batch * heads + head) * queries + query
    q_MD = load_rows(q, q_row, inside, D, BLOCK_D, WIDEN)
    grad_MD = load_rows(grad_out, out_row * DV, inside, DV, BLOCK_DV, WIDEN)
    lse_M = load_lse(lse, out_row, inside)
    delta_M = tl.load(delta + out_row, mask=inside, other=0.0)
    if mask is not None:
        mask += batch * mask_strides[0] + wide * mask_strides[1]
    row = (batch * heads + head) * tiles + tile
    grad_q_MD = tl.zeros([M, BLOCK_D], tl.float32)
    for i in range(tl.load(count + row) * PARTS_K):
        part = i % PARTS_K * N + tl.arange(0, N)
        key = tl.load(index + row * kept + i // PARTS_K) * BLOCK_K + part
        key_inside = (part < BLOCK_K) & (key < keys)
        wide_key = key.to(tl.int64)
        k_row = batch * k_strides[0] + key_head * k_strides[1] + wide_key * k_strides[2]
        v_row = batch * v_strides[0] + key_head * v_strides[1] + wide_key * v_strides[2]
        k_ND = load_rows(k, k_row, key_inside, D, BLOCK_D, WIDEN)
        v_ND = load_rows(v, v_row, key_inside, DV, BLOCK_DV, WIDEN)
        score_MN = tl.dot(q_MD, k_ND.T, input_precision=PRECISION) * (scale * LOG2E)
        seen = visible(mask, mask_strides, query, inside, key, key_inside, shift, HAS_SHIFT, False)
        weight_MN = tl.where(seen, tl.math.exp2(score_MN - lse_M[:, None]), 0.0)
        grad_weight_MN = tl.dot(grad_MD, v_ND.T, input_precision=PRECISION)
        grad_score_MN = weight_MN * (grad_weight_MN - delta_M[:, None])
        grad_q_MD = tl.dot(grad_score_MN.to(k_ND.dtype), k_ND, grad_q_MD, input_precision=PRECISION)
    store_rows(grad_q, grad_q_MD * scale, out_row * D, inside, D, BLOCK_D)


@triton.jit
def grad_key_kernel(
    q, k, v, mask, owner, begin, grad_out, lse, delta, grad_k, grad_v,
    q_strides, k_strides, v_strides, mask_strides,
    heads, repeats, queries, keys, key_blocks, tiles, shift, scale,  # key heads; query heads of each; query blocks
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, M: tl.constexpr, N: tl.constexpr, HAS_SHIFT: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """dV = P^T dO and dK = scale dS^T Q over the query blocks that keep a key block; scores transposed, [N, M]."""
    PARTS_Q: tl.constexpr = (BLOCK_Q + M - 1) // M
    PARTS_K: tl.constexpr = (BLOCK_K + N - 1) // N
    program = tl.program_id(0)
    number = program // PARTS_K
    key_head = number // key_blocks % heads
    batch = (number // key_blocks // heads).to(tl.int64)
    part = program % PARTS_K * N + tl.arange(0, N)
    key = number % key_blocks * BLOCK_K + part
    key_inside = (part < BLOCK_K) & (key < keys)
    wide_key, wide_head = key.to(tl.int64), key_head.to(tl.int64)
    k_row = batch * k_strides[0] + wide_head * k_strides[1] + wide_key * k_strides[2]
    v_row = batch * v_strides[0] + wide_head * v_strides[1] + wide_key * v_strides[2]
    k_ND = load_rows(k, k_row, key_inside, D, BLOCK_D, WIDEN)
    v_ND = load_rows(v, v_row, key_inside, DV, BLOCK_DV, WIDEN)
    grad_k_ND = tl.zeros([N, BLOCK_D], tl.float32)
    grad_v_ND = tl.zeros([N, BLOCK_DV], tl.float32)
    start = tl.load(begin + number)
    walk = (tl.load(begin + number + 1) - start).to(tl.int32)
    for i in range(walk * PARTS_Q):
        who = tl.load(owner + start + i // PARTS_Q)
        head = key_head * repeats + who // tiles
        within = i % PARTS_Q * M + tl.arange(0, M)
        query = who % tiles * BLOCK_Q + within
        inside = (within < BLOCK_Q) & (query < queries)
        wide = head.to(tl.int64)
        q_row = batch * q_strides[0] + wide * q_strides[1] + query.to(tl.int64) * q_strides[2]
        out_row = (batch * (heads * repeats) + head) * queries + query
        q_MD = load_rows(q, q_row, inside, D, BLOCK_D, WIDEN)
        grad_MD = load_rows(grad_out, out_row * DV, inside, DV, BLOCK_DV, WIDEN)
        lse_M = load_lse(lse, out_row, inside)
        delta_M = tl.load(delta + out_row, mask=inside, other=0.0)
        score_NM = tl.dot(k_ND, q_MD.T, input_precision=PRECISION) * (scale * LOG2E)
        if mask is not None:
            here = mask + batch * mask_strides[0] + wide * mask_strides[1]
        else:
            here = mask
        seen = visible(here, mask_strides, query, inside, key, key_inside, shift, HAS_SHIFT, True)
        weight_NM = tl.where(seen, tl.math.exp2(score_NM - lse_M[None, :]), 0.0)
        grad_v_ND = tl.dot(weight_NM.to(grad_MD.dtype), grad_MD, grad_v_ND, input_precision=PRECISION)
        grad_weight_NM = tl.dot(v_ND, grad_MD.T, input_precision=PRECISION)
        grad_score_NM = weight_NM * (grad_weight_NM - delta_M[None, :])
        grad_k_ND = tl.dot(grad_score_NM.to(q_MD.dtype), q_MD, grad_k_ND, input_precision=PRECISION)
    key_row = (batch * heads + key_head) * keys + key
    store_rows(grad_k, grad_k_ND * scale, key_row * D, key_inside, D, BLOCK_D)
    store_rows(grad_v, grad_v_ND, key_row * DV, key_inside, DV, BLOCK_DV)


def forward(q: Tensor, k: Tensor, v: Tensor, kept: Kept, scale: float) -> tuple[Tensor, Tensor]:
    """(out [B, H, N, Dv], lse [B, H, N]): zeros and -inf for a query that sees no key. q: [B, H, N, D]."""
    out, lse = q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=torch.float32)
    if out.numel():
        forward_launch(q, k, v, out, lse, kept, scale).run()
    return out, lse


def forward_launch(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, kept: Kept, scale: float, target: str | None = None
) -> Launch:
    """The launch behind `forward`. target: the device's when None."""
    target = target or _triton.target_of(q.device)
    block, constants = _constants("forward", q, v, kept, target)
    tiles = kept.index.shape[2]
    return Launch(
        forward_kernel,
        triton.cdiv(kept.block[0], block.queries) * tiles * q.shape[1] * q.shape[0],
        {
            **_loaded(q, k, v, kept),
            "index": kept.index.contiguous(),
            "count": kept.count.contiguous(),
            "out": out,
            "lse": lse,
            "heads": q.shape[1],
            "kept": kept.index.shape[3],
            "tiles": tiles,
            "scale": scale * log2(e),
        },
        constants,
        block.num_warps,
        block.num_stages,
    )


def backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, kept: Kept,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dq, dk, dv), contiguous; the same bits at every call."""
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if q.numel() == 0 or v.numel() == 0:
        return dq.zero_(), dk.zero_(), dv.zero_()
    grad_out, lse = grad_out.contiguous(), lse.contiguous()
    delta = torch.empty_like(lse)
    delta_launch(grad_out, grad_lse, out, delta).run()
    turned = seen_by(kept.index, kept.count, k.shape[1], triton.cdiv(k.shape[2], kept.block[1]))
    for launch in backward_launches(grad_out, q, k, v, lse, delta, dq, dk, dv, kept, turned, scale):
        launch.run()
    return dq, dk, dv


def backward_launches(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, dq: Tensor, dk: Tensor, dv: Tensor,
    kept: Kept, turned: SeenBy, scale: float, target: str | None = None,
) -> list[Launch]:  # fmt: skip
    """The launches that write dq, and dk and dv; these, grad_out, lse and delta are contiguous."""
    target = target or _triton.target_of(q.device)
    tiles = kept.index.shape[2]
    key_blocks = triton.cdiv(k.shape[2], kept.block[1])
    common = {"grad_out": grad_out, "lse": lse, "delta": delta, "tiles": tiles, "scale": scale}
    launches = []
    for kernel, name, grid, arguments in (
        (
            grad_query_kernel,
            "grad_query",
            tiles * q.shape[1],
            {
                "index": kept.index.contiguous(),
                "count": kept.count.contiguous(),
                "grad_q": dq,
                "heads": q.shape[1],
                "kept": kept.index.shape[3],
            },
        ),
        (
            grad_key_kernel,
            "grad_key",
            key_blocks * k.shape[1],
            {**turned._asdict(), "grad_k": dk, "grad_v": dv, "heads": k.shape[1], "key_blocks": key_blocks},
        ),
    ):
        block, constants = _constants(name, q, v, kept, target)
        parts = triton.cdiv(*((kept.block[0], block.queries) if name == "grad_query" else (kept.block[1], block.keys)))
        launch = Launch(
            kernel,
            parts * grid * q.shape[0],
            {**_loaded(q, k, v, kept), **common, **arguments},
            constants,
            block.num_warps,
            block.num_stages,
        )
        launches.append(launch)
    return launches


def _constants(kernel: str, q: Tensor, v: Tensor, kept: Kept, target: str) -> tuple[Blocks, Mapping[str, Any]]:
    """Tiles no larger than the blocks that are kept, rounded up to what tensor cores take."""
    most = blocks(target, q.dtype, max(q.shape[-1], v.shape[-1]), kernel)
    queries, keys = (max(16, triton.next_power_of_2(side)) for side in kept.block)
    block = Blocks(min(most.queries, queries), min(most.keys, keys), most.num_warps, most.num_stages)
    if block.queries * block.keys <= 2048:  # a small product cannot feed more warps
        block = Blocks(block.queries, block.keys, min(4, most.num_warps), most.num_stages)
    return block, {
        **sizes(q, v, target),
        "BLOCK_Q": kept.block[0],
        "BLOCK_K": kept.block[1],
        "M": block.queries,
        "N": block.keys,
        "HAS_SHIFT": kept.shift is not None,
    }


def _loaded(q: Tensor, k: Tensor, v: Tensor, kept: Kept) -> dict[str, Any]:
    """What all kernels load, and its strides."""
    q, k, v = rows(q), rows(k), rows(v)
    loads: dict[str, Any] = {f"{name}_strides": x.stride()[:3] for name, x in (("q", q), ("k", k), ("v", v))}
    mask = kept.mask
    if mask is not None:
        mask = mask.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2]).view(torch.uint8)
    return loads | {
        "q": q,
        "k": k,
        "v": v,
        "mask": mask,
        "mask_strides": (0, 0, 0, 0) if mask is None else mask.stride(),
        "repeats": q.shape[1] // k.shape[1],
        "queries": q.shape[2],
        "keys": k.shape[2],
        "shift": kept.shift or 0,
    }
