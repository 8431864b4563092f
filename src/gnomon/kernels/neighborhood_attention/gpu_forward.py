"""Fused neighborhood attention, forward: one program per tile of queries, online softmax over the tiles of keys.

Hassani et al. 2024 (arXiv:2403.04690), algorithm FNA; the running maximum and sum as in Dao 2023 (arXiv:2307.08691), in
base 2. Only the output and the logsumexp are written. See `gpu_windows` for the words.
M queries of a tile, N keys of a tile.
"""

# mypy: allow-incomplete-defs
# only constexpr parameters of a kernel are annotated: to Triton, any other annotation is the type of an argument

import triton
import triton.language as tl

from gnomon.kernels.neighborhood_attention.gpu_windows import (
    all_see_all,
    bias_row,
    load_tile,
    places,
    seen,
    split,
    tile_keys,
    tokens,
    windows,
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
):  # fmt: skip
    LOG2E: tl.constexpr = 1.4426950408889634
    M: tl.constexpr = TILE_Q[0] * TILE_Q[1] * TILE_Q[2]
    program = tl.program_id(0)
    tile0, tile1, tile2 = split(program % (tiles[0] * tiles[1] * tiles[2]), tiles[0], tiles[1], tiles[2])
    program = program // (tiles[0] * tiles[1] * tiles[2])
    head = program % heads
    key_head = head // repeats
    group = split(program // heads % (d[0] * d[1] * d[2]), d[0], d[1], d[2])
    batch = program // heads // (d[0] * d[1] * d[2])
    extent = (
        (n[0] - group[0] + d[0] - 1) // d[0],
        (n[1] - group[1] + d[1] - 1) // d[1],
        (n[2] - group[2] + d[2] - 1) // d[2],
    )
    first = (tile0 * TILE_Q[0], tile1 * TILE_Q[1], tile2 * TILE_Q[2])
    last0 = tl.minimum(first[0] + TILE_Q[0], extent[0]) - 1
    last1 = tl.minimum(first[1] + TILE_Q[1], extent[1]) - 1
    last2 = tl.minimum(first[2] + TILE_Q[2], extent[2]) - 1
    query = places(first, TILE_Q)
    start, end = windows(query, extent, w, S, CAUSAL)
    low0, count0 = tile_keys(first[0], last0, extent[0], w[0], S[0], CAUSAL[0], TILE_K[0])
    low1, count1 = tile_keys(first[1], last1, extent[1], w[1], S[1], CAUSAL[1], TILE_K[1])
    low2, count2 = tile_keys(first[2], last2, extent[2], w[2], S[2], CAUSAL[2], TILE_K[2])
    # a tile of a short dilation group may lie wholly outside it: it walks no keys and writes nothing
    count = tl.where((last0 < first[0]) | (last1 < first[1]) | (last2 < first[2]), 0, count0 * count1 * count2)

    q_MD = load_tile(
        q, q_strides, batch, head, first, query, group, n, d, extent, TILE_Q, D, BLOCK_D, TMA, WIDEN
    )  # fmt: skip
    factor = 1.0 if SCALE_FIRST else scale
    if BIASED:
        table = bias + head.to(tl.int64) * ((2 * w[0] - 1) * (2 * w[1] - 1) * (2 * w[2] - 1))
        query_row = bias_row(query, w) - bias_row((w[0] - 1, w[1] - 1, w[2] - 1), w)
    max_M = tl.full([M], float("-inf"), tl.float32)
    sum_M = tl.zeros([M], tl.float32)
    out_MD = tl.zeros([M, BLOCK_DV], tl.float32)
    for i in range(count):
        step0, step1, step2 = split(i, count0, count1, count2)
        at = (low0 + step0 * TILE_K[0], low1 + step1 * TILE_K[1], low2 + step2 * TILE_K[2])
        key = places(at, TILE_K)
        k_ND = load_tile(
            k, k_strides, batch, key_head, at, key, group, n, d, extent, TILE_K, D, BLOCK_D, TMA, WIDEN
        )  # fmt: skip
        score_MN = tl.dot(q_MD, k_ND.T, input_precision=PRECISION)
        is_full = all_see_all(first[2], last2, at[2], extent[2], w[2], S[2], CAUSAL[2], TILE_K[2])
        if AXES >= 2:
            is_full &= all_see_all(first[1], last1, at[1], extent[1], w[1], S[1], CAUSAL[1], TILE_K[1])
        if AXES >= 3:
            is_full &= all_see_all(first[0], last0, at[0], extent[0], w[0], S[0], CAUSAL[0], TILE_K[0])
        if SCALE_FIRST:
            score_MN *= scale
        if BIASED:
            seen_MN = seen(start, end, key, AXES)
            offset_MN = bias_row(key, w)[None, :] - query_row[:, None]
            bias_MN = tl.load(table + offset_MN, mask=seen_MN, other=0.0).to(tl.float32) * LOG2E
            score_MN = tl.where(seen_MN, score_MN + bias_MN, float("-inf"))
        elif not is_full:
            score_MN = tl.where(seen(start, end, key, AXES), score_MN, float("-inf"))
        new_max_M = tl.maximum(max_M, tl.max(score_MN, 1) * factor)
        shift_M = tl.where(new_max_M == float("-inf"), 0.0, new_max_M)  # a query may see nothing of this tile
        weight_MN = tl.math.exp2(score_MN * factor - shift_M[:, None])
        decay_M = tl.math.exp2(max_M - shift_M)
        sum_M = sum_M * decay_M + tl.sum(weight_MN, 1)
        out_MD = out_MD * decay_M[:, None]
        v_ND = load_tile(
            v, v_strides, batch, key_head, at, key, group, n, d, extent, TILE_K, DV, BLOCK_DV, TMA, WIDEN
        )  # fmt: skip
        out_MD = tl.dot(weight_MN.to(v_ND.dtype), v_ND, out_MD, input_precision=PRECISION)
        max_M = new_max_M

    token, inside = tokens(query, group, n, d, extent)
    row = (batch.to(tl.int64) * n[0] * n[1] * n[2] + token) * heads + head
    feature = tl.arange(0, BLOCK_DV)
    out_MD = out_MD / sum_M[:, None]
    tl.store(
        out + row[:, None] * DV + feature[None, :],
        out_MD.to(out.dtype.element_ty),
        mask=inside[:, None] & (feature[None, :] < DV),
    )
    tl.store(lse + row, (max_M + tl.math.log2(sum_M)) / LOG2E, mask=inside)
