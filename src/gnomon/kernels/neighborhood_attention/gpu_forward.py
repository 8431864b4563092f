"""Fused neighborhood attention, forward: one program per tile of queries, online softmax over the tiles of keys.

Hassani et al. 2024 (arXiv:2403.04690), algorithm FNA; the running maximum and sum as in Dao 2023 (arXiv:2307.08691), in
base 2. Only the output and the logsumexp are written. See `gpu_windows` for the words.
M queries of a tile, N keys of a tile.
"""

# mypy: allow-incomplete-defs
# only constexpr parameters of a kernel are annotated: to Triton, any other annotation is the type of an argument

import triton
import triton.language as tl

from gnomon.kernels._triton_attention import LOG2E
from gnomon.kernels.neighborhood_attention.gpu_windows import (
    all_see_all,
    bias_row,
    keys_seen,
    load_tile,
    places,
    seen,
    step_to,
    steps,
    store_tile,
    tokens,
    windows,
    work,
)


@triton.jit
def forward_kernel(
    q, k, v, bias, out, lse,
    q_strides, k_strides, v_strides,  # of batch, token and head
    heads, repeats, scale,  # query heads; query heads per key head; log2(e) is in the scale
    n, w, d, tiles,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    AXES: tl.constexpr, S: tl.constexpr, CAUSAL: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr,
    BIASED: tl.constexpr, SCALE_FIRST: tl.constexpr, PRECISION: tl.constexpr, TMA: tl.constexpr, WIDEN: tl.constexpr,
    SPECIALIZE: tl.constexpr,
):  # fmt: skip
    M: tl.constexpr = TILE_Q[0] * TILE_Q[1] * TILE_Q[2]
    batch, head, group, extent, first, last = work(tl.program_id(0), heads, n, d, tiles, TILE_Q)
    key_head = head // repeats
    query = places(first, TILE_Q)
    token, inside = tokens(query, group, n, d, extent)
    start, end = windows(query, extent, w, S, CAUSAL)
    low, count = keys_seen(first, last, extent, w, S, CAUSAL, TILE_K)
    q_MD = load_tile(q, q_strides, batch, head, first, token, inside, TILE_Q, D, BLOCK_D, False, WIDEN)
    factor = 1.0 if SCALE_FIRST else scale
    if BIASED:
        table = bias + head.to(tl.int64) * ((2 * w[0] - 1) * (2 * w[1] - 1) * (2 * w[2] - 1))
        query_row = bias_row(query, w) - bias_row((w[0] - 1, w[1] - 1, w[2] - 1), w)
    max_M = tl.full([M], float("-inf"), tl.float32)
    sum_M = tl.zeros([M], tl.float32)
    out_MD = tl.zeros([M, BLOCK_DV], tl.float32)
    for i in tl.range(0, steps(first, last, count), warp_specialize=SPECIALIZE):
        at = step_to(i, low, count, TILE_K)
        key = places(at, TILE_K)
        key_token, key_inside = tokens(key, group, n, d, extent)
        k_ND = load_tile(k, k_strides, batch, key_head, at, key_token, key_inside, TILE_K, D, BLOCK_D, TMA, WIDEN)
        score_MN = tl.dot(q_MD, k_ND.T, input_precision=PRECISION)
        if SCALE_FIRST:
            score_MN *= scale
        if BIASED:
            seen_MN = seen(start, end, key, AXES, False)
            offset_MN = bias_row(key, w)[None, :] - query_row[:, None]
            bias_MN = tl.load(table + offset_MN, mask=seen_MN, other=0.0).to(tl.float32) * LOG2E
            score_MN = tl.where(seen_MN, score_MN + bias_MN, float("-inf"))
        elif not all_see_all(first, last, at, extent, w, S, CAUSAL, TILE_K, AXES):
            score_MN = tl.where(seen(start, end, key, AXES, False), score_MN, float("-inf"))
        new_max_M = tl.maximum(max_M, tl.max(score_MN, 1) * factor)
        shift_M = tl.where(new_max_M == float("-inf"), 0.0, new_max_M)  # a query may see nothing of this tile
        weight_MN = tl.math.exp2(score_MN * factor - shift_M[:, None])
        decay_M = tl.math.exp2(max_M - shift_M)
        sum_M = sum_M * decay_M + tl.sum(weight_MN, 1)
        v_ND = load_tile(v, v_strides, batch, key_head, at, key_token, key_inside, TILE_K, DV, BLOCK_DV, TMA, WIDEN)
        out_MD = tl.dot(weight_MN.to(v_ND.dtype), v_ND, out_MD * decay_M[:, None], input_precision=PRECISION)
        max_M = new_max_M

    row = (batch.to(tl.int64) * n[0] * n[1] * n[2] + token) * heads + head
    store_tile(out, out_MD / sum_M[:, None], row, inside, DV, BLOCK_DV)
    tl.store(lse + row, (max_M + tl.math.log2(sum_M)) / LOG2E, mask=inside)
