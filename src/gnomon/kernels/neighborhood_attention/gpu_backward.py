"""Fused neighborhood attention, backward: a kernel over tiles of queries writes dQ, one over tiles of keys dK and dV.

Hassani et al. 2024 (arXiv:2403.04690); weights are computed again from the logsumexp: P = exp(S - lse),
dS = P (dO V^T - delta), delta = rowsum(dO O) - dlse. No atomics: each result is summed by one program in a fixed order,
so gradients are the same bits every time. See `gpu_windows` for the words. M queries of a tile, N keys of a tile.
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
    last_of,
    load_tile,
    places,
    queries_seeing,
    seen,
    split,
    step_to,
    steps,
    store_tile,
    tokens,
    windows,
    work,
)


@triton.jit
def grad_query_kernel(
    q, k, v, bias, grad_out, lse, delta, grad_q,
    q_strides, k_strides, v_strides, grad_strides,  # of batch, token and head
    heads, repeats, scale,  # query heads; query heads per key head
    n, w, d, tiles,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    AXES: tl.constexpr, S: tl.constexpr, CAUSAL: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr,
    BIASED: tl.constexpr, PRECISION: tl.constexpr, TMA: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """dQ = scale dS K: walks the keys as the forward kernel does."""
    batch, head, group, extent, first, last = work(tl.program_id(0), heads, n, d, tiles, TILE_Q)
    key_head = head // repeats
    query = places(first, TILE_Q)
    token, inside = tokens(query, group, n, d, extent)
    row = (batch.to(tl.int64) * n[0] * n[1] * n[2] + token) * heads + head
    start, end = windows(query, extent, w, S, CAUSAL)
    low, count = keys_seen(first, last, extent, w, S, CAUSAL, TILE_K)
    q_MD = load_tile(q, q_strides, batch, head, first, token, inside, TILE_Q, D, BLOCK_D, False, WIDEN)
    grad_MD = load_tile(grad_out, grad_strides, batch, head, first, token, inside, TILE_Q, DV, BLOCK_DV, False, WIDEN)
    lse_M = tl.load(lse + row, mask=inside, other=0.0) * LOG2E
    delta_M = tl.load(delta + row, mask=inside, other=0.0)
    if BIASED:
        table = bias + head.to(tl.int64) * ((2 * w[0] - 1) * (2 * w[1] - 1) * (2 * w[2] - 1))
        query_row = bias_row(query, w) - bias_row((w[0] - 1, w[1] - 1, w[2] - 1), w)
    grad_q_MD = tl.zeros([TILE_Q[0] * TILE_Q[1] * TILE_Q[2], BLOCK_D], tl.float32)
    for i in range(steps(first, last, count)):
        at = step_to(i, low, count, TILE_K)
        key = places(at, TILE_K)
        key_token, key_inside = tokens(key, group, n, d, extent)
        k_ND = load_tile(k, k_strides, batch, key_head, at, key_token, key_inside, TILE_K, D, BLOCK_D, TMA, WIDEN)
        v_ND = load_tile(v, v_strides, batch, key_head, at, key_token, key_inside, TILE_K, DV, BLOCK_DV, TMA, WIDEN)
        score_MN = tl.dot(q_MD, k_ND.T, input_precision=PRECISION) * (scale * LOG2E)
        grad_weight_MN = tl.dot(grad_MD, v_ND.T, input_precision=PRECISION)
        if BIASED:
            seen_MN = seen(start, end, key, AXES, False)
            offset_MN = bias_row(key, w)[None, :] - query_row[:, None]
            score_MN += tl.load(table + offset_MN, mask=seen_MN, other=0.0).to(tl.float32) * LOG2E
            weight_MN = tl.where(seen_MN, tl.math.exp2(score_MN - lse_M[:, None]), 0.0)
        else:
            weight_MN = tl.math.exp2(score_MN - lse_M[:, None])
            if not all_see_all(first, last, at, extent, w, S, CAUSAL, TILE_K, AXES):
                weight_MN = tl.where(seen(start, end, key, AXES, False), weight_MN, 0.0)
        grad_score_MN = weight_MN * (grad_weight_MN - delta_M[:, None])
        grad_q_MD = tl.dot(grad_score_MN.to(k_ND.dtype), k_ND, grad_q_MD, input_precision=PRECISION)
    store_tile(grad_q, grad_q_MD * scale, row, inside, D, BLOCK_D)


@triton.jit
def grad_key_kernel(
    q, k, v, bias, grad_out, lse, delta, grad_k, grad_v,
    q_strides, k_strides, v_strides, grad_strides,  # of batch, token and head
    heads, repeats, scale,  # key heads; query heads per key head
    n, w, d, tiles,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    AXES: tl.constexpr, S: tl.constexpr, CAUSAL: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr,
    BIASED: tl.constexpr, PRECISION: tl.constexpr, TMA: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """dV = P^T dO and dK = scale dS^T Q: walks the queries that see a tile of keys, for each head that reads it.

    Scores are computed transposed, [N, M], so that the products need no transposed weights.
    """
    N: tl.constexpr = TILE_K[0] * TILE_K[1] * TILE_K[2]
    batch, key_head, group, extent, at, last_key = work(tl.program_id(0), heads, n, d, tiles, TILE_K)
    key = places(at, TILE_K)
    key_token, key_inside = tokens(key, group, n, d, extent)
    low, count = queries_seeing(at, last_key, extent, w, S, CAUSAL, TILE_Q)
    walk = steps(at, last_key, count)
    k_ND = load_tile(k, k_strides, batch, key_head, at, key_token, key_inside, TILE_K, D, BLOCK_D, False, WIDEN)
    v_ND = load_tile(v, v_strides, batch, key_head, at, key_token, key_inside, TILE_K, DV, BLOCK_DV, False, WIDEN)
    grad_k_ND = tl.zeros([N, BLOCK_D], tl.float32)
    grad_v_ND = tl.zeros([N, BLOCK_DV], tl.float32)
    for i in range(walk * repeats):
        head = key_head * repeats + i // walk
        first = step_to(i % walk, low, count, TILE_Q)
        query = places(first, TILE_Q)
        token, inside = tokens(query, group, n, d, extent)
        row = (batch.to(tl.int64) * n[0] * n[1] * n[2] + token) * (heads * repeats) + head
        q_MD = load_tile(q, q_strides, batch, head, first, token, inside, TILE_Q, D, BLOCK_D, TMA, WIDEN)
        grad_MD = load_tile(
            grad_out, grad_strides, batch, head, first, token, inside, TILE_Q, DV, BLOCK_DV, TMA, WIDEN
        )  # fmt: skip
        # a query that does not exist is zero, and so is its gradient: it adds nothing where no mask hides it
        lse_M = tl.load(lse + row, mask=inside, other=0.0) * LOG2E
        delta_M = tl.load(delta + row, mask=inside, other=0.0)
        score_NM = tl.dot(k_ND, q_MD.T, input_precision=PRECISION) * (scale * LOG2E)
        if BIASED:
            start, end = windows(query, extent, w, S, CAUSAL)
            seen_NM = seen(start, end, key, AXES, True) & inside[None, :]
            table = bias + head.to(tl.int64) * ((2 * w[0] - 1) * (2 * w[1] - 1) * (2 * w[2] - 1))
            query_row = bias_row(query, w) - bias_row((w[0] - 1, w[1] - 1, w[2] - 1), w)
            offset_NM = bias_row(key, w)[:, None] - query_row[None, :]
            score_NM += tl.load(table + offset_NM, mask=seen_NM, other=0.0).to(tl.float32) * LOG2E
            weight_NM = tl.where(seen_NM, tl.math.exp2(score_NM - lse_M[None, :]), 0.0)
        else:
            weight_NM = tl.math.exp2(score_NM - lse_M[None, :])
            if not all_see_all(first, last_of(first, extent, TILE_Q), at, extent, w, S, CAUSAL, TILE_K, AXES):
                start, end = windows(query, extent, w, S, CAUSAL)
                weight_NM = tl.where(seen(start, end, key, AXES, True), weight_NM, 0.0)
        grad_v_ND = tl.dot(weight_NM.to(grad_MD.dtype), grad_MD, grad_v_ND, input_precision=PRECISION)
        grad_weight_NM = tl.dot(v_ND, grad_MD.T, input_precision=PRECISION)
        grad_score_NM = weight_NM * (grad_weight_NM - delta_M[None, :])
        grad_k_ND = tl.dot(grad_score_NM.to(q_MD.dtype), q_MD, grad_k_ND, input_precision=PRECISION)
    row = (batch.to(tl.int64) * n[0] * n[1] * n[2] + key_token) * heads + key_head
    store_tile(grad_k, grad_k_ND * scale, row, key_inside, D, BLOCK_D)
    store_tile(grad_v, grad_v_ND, row, key_inside, DV, BLOCK_DV)


@triton.jit
def grad_bias_kernel(
    q, k, v, bias, grad_out, lse, delta, partial,
    q_strides, k_strides, v_strides, grad_strides,  # of batch, token and head
    heads, repeats, scale,  # query heads; query heads per key head
    n, w, d, tiles, items, parts,  # items: tiles of one head, in all batches and groups
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    S: tl.constexpr, CAUSAL: tl.constexpr, TILE_Q: tl.constexpr,
):  # fmt: skip
    """partial[part, head, entry]: dS summed over the pairs with one offset, in every parts-th tile of queries.

    A program owns one entry of the table, so the order of its sum is fixed. With the offset fixed, each query has one
    key: products are sums along rows, without tensor cores. Work is (2w - 1) / w per axis of the pairs seen, which
    suits the small windows that tables of biases are made for.
    """
    entries = (2 * w[0] - 1) * (2 * w[1] - 1) * (2 * w[2] - 1)
    entry = tl.program_id(0) % entries
    head = tl.program_id(0) // entries % heads
    part = tl.program_id(0) // entries // heads
    offset = split(entry, 2 * w[0] - 1, 2 * w[1] - 1, 2 * w[2] - 1)
    bias_here = tl.load(bias + head.to(tl.int64) * entries + entry).to(tl.float32) * LOG2E
    sum_M = tl.zeros([TILE_Q[0] * TILE_Q[1] * TILE_Q[2]], tl.float32)
    for item in range(part, items, parts):
        batch, _, group, extent, first, _ = work(item, 1, n, d, tiles, TILE_Q)
        query = places(first, TILE_Q)
        key = (query[0] + offset[0] - (w[0] - 1), query[1] + offset[1] - (w[1] - 1), query[2] + offset[2] - (w[2] - 1))
        token, inside = tokens(query, group, n, d, extent)
        key_token, _ = tokens(key, group, n, d, extent)
        start, end = windows(query, extent, w, S, CAUSAL)
        sees = inside & (key[0] >= start[0]) & (key[0] < end[0])
        sees = sees & (key[1] >= start[1]) & (key[1] < end[1]) & (key[2] >= start[2]) & (key[2] < end[2])
        row = (batch.to(tl.int64) * n[0] * n[1] * n[2] + token) * heads + head
        q_MD = load_tile(q, q_strides, batch, head, first, token, sees, TILE_Q, D, BLOCK_D, False, True)
        k_MD = load_tile(k, k_strides, batch, head // repeats, first, key_token, sees, TILE_Q, D, BLOCK_D, False, True)
        grad_MD = load_tile(grad_out, grad_strides, batch, head, first, token, sees, TILE_Q, DV, BLOCK_DV, False, True)
        v_MD = load_tile(
            v, v_strides, batch, head // repeats, first, key_token, sees, TILE_Q, DV, BLOCK_DV, False, True
        )  # fmt: skip
        score_M = tl.sum(q_MD * k_MD, 1) * (scale * LOG2E) + bias_here
        weight_M = tl.math.exp2(score_M - tl.load(lse + row, mask=sees, other=0.0) * LOG2E)
        grad_score_M = weight_M * (tl.sum(grad_MD * v_MD, 1) - tl.load(delta + row, mask=sees, other=0.0))
        sum_M += tl.where(sees, grad_score_M, 0.0)
    tl.store(partial + tl.program_id(0), tl.sum(sum_M, 0))
