"""Attention within packed sequences in Triton: forward, and a backward of two kernels without atomics.

Dao 2023 (arXiv:2307.08691) with bounds of sequences in place of a batch axis. Programs are laid out for the longest
sequence; those beyond the end of a shorter one do nothing. Keys of other sequences are never loaded.
M queries of a tile, N keys of a tile, D features.
"""

# mypy: allow-incomplete-defs
# only constexpr parameters of a kernel are annotated: to Triton, any other annotation is the type of an argument

import triton
import triton.language as tl

from gnomon.kernels._triton_attention import (
    LOG2E,
    load_lse,
    load_rows,
    logsumexp,
    normalized,
    online_softmax,
    store_rows,
)


@triton.jit
def work(index, heads, tiles, bounds):
    """(tile, head, first token of the sequence, its length): tiles fastest, then heads, then sequences."""
    sequence = index // tiles // heads
    start = tl.load(bounds + sequence).to(tl.int64)
    length = (tl.load(bounds + sequence + 1) - start).to(tl.int32)
    return index % tiles, index // tiles % heads, start, length


@triton.jit
def forward_kernel(
    q, k, v, bounds, out, lse,
    q_strides, k_strides, v_strides,  # of token and head
    heads, repeats, scale, tiles,  # log2(e) is in the scale
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    tile, head, start, length = work(tl.program_id(0), heads, tiles, bounds)
    first = tile * M
    query = first + tl.arange(0, M)
    inside = query < length
    token = start + query
    q_head, key_head = head.to(tl.int64), (head // repeats).to(tl.int64)
    q_MD = load_rows(q, token * q_strides[0] + q_head * q_strides[1], inside, D, BLOCK_D, WIDEN)
    max_M = tl.full([M], float("-inf"), tl.float32)
    sum_M = tl.zeros([M], tl.float32)
    out_MD = tl.zeros([M, BLOCK_DV], tl.float32)
    stop = tl.minimum(length, first + M) if CAUSAL else length
    for at in range(0, tl.where(first < length, stop, 0), N):
        key = at + tl.arange(0, N)
        row = start + key
        k_ND = load_rows(k, row * k_strides[0] + key_head * k_strides[1], key < length, D, BLOCK_D, WIDEN)
        score_MN = tl.dot(q_MD, k_ND.T, input_precision=PRECISION) * scale
        if CAUSAL:
            if at + N - 1 > first:
                score_MN = tl.where(key[None, :] <= query[:, None], score_MN, float("-inf"))
        if at + N > length:
            score_MN = tl.where(key[None, :] < length, score_MN, float("-inf"))
        weight_MN, decay_M, max_M, sum_M = online_softmax(score_MN, max_M, sum_M)
        v_ND = load_rows(v, row * v_strides[0] + key_head * v_strides[1], key < length, DV, BLOCK_DV, WIDEN)
        out_MD = tl.dot(weight_MN.to(v_ND.dtype), v_ND, out_MD * decay_M[:, None], input_precision=PRECISION)
    row = token * heads + head
    store_rows(out, normalized(out_MD, sum_M), row * DV, inside, DV, BLOCK_DV)
    tl.store(lse + row, logsumexp(max_M, sum_M), mask=inside)


@triton.jit
def grad_query_kernel(
    q, k, v, bounds, grad_out, lse, delta, grad_q,
    q_strides, k_strides, v_strides,  # of token and head
    heads, repeats, scale, tiles,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    tile, head, start, length = work(tl.program_id(0), heads, tiles, bounds)
    first = tile * M
    query = first + tl.arange(0, M)
    inside = query < length
    token = start + query
    at_row = token * heads + head
    q_head, key_head = head.to(tl.int64), (head // repeats).to(tl.int64)
    q_MD = load_rows(q, token * q_strides[0] + q_head * q_strides[1], inside, D, BLOCK_D, WIDEN)
    grad_MD = load_rows(grad_out, at_row * DV, inside, DV, BLOCK_DV, WIDEN)
    lse_M = load_lse(lse, at_row, inside)
    delta_M = tl.load(delta + at_row, mask=inside, other=0.0)
    grad_q_MD = tl.zeros([M, BLOCK_D], tl.float32)
    stop = tl.minimum(length, first + M) if CAUSAL else length
    for at in range(0, tl.where(first < length, stop, 0), N):
        key = at + tl.arange(0, N)
        row = start + key
        k_ND = load_rows(k, row * k_strides[0] + key_head * k_strides[1], key < length, D, BLOCK_D, WIDEN)
        v_ND = load_rows(v, row * v_strides[0] + key_head * v_strides[1], key < length, DV, BLOCK_DV, WIDEN)
        score_MN = tl.dot(q_MD, k_ND.T, input_precision=PRECISION) * (scale * LOG2E)
        weight_MN = tl.math.exp2(score_MN - lse_M[:, None])
        # keys beyond the end are zero, but their weights may overflow
        weight_MN = tl.where(key[None, :] < length, weight_MN, 0.0)
        if CAUSAL:
            weight_MN = tl.where(key[None, :] <= query[:, None], weight_MN, 0.0)
        grad_weight_MN = tl.dot(grad_MD, v_ND.T, input_precision=PRECISION)
        grad_score_MN = weight_MN * (grad_weight_MN - delta_M[:, None])
        grad_q_MD = tl.dot(grad_score_MN.to(k_ND.dtype), k_ND, grad_q_MD, input_precision=PRECISION)
    store_rows(grad_q, grad_q_MD * scale, at_row * D, inside, D, BLOCK_D)


@triton.jit
def grad_key_kernel(
    q, k, v, bounds, grad_out, lse, delta, grad_k, grad_v,
    q_strides, k_strides, v_strides,  # of token and head
    heads, repeats, scale, tiles,  # key heads; query heads per key head; tiles of keys
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Scores are computed transposed, [N, M], so that the products need no transposed weights."""
    tile, key_head, start, length = work(tl.program_id(0), heads, tiles, bounds)
    at = tile * N
    key = at + tl.arange(0, N)
    key_inside = key < length
    row = start + key
    wide_head = key_head.to(tl.int64)
    k_ND = load_rows(k, row * k_strides[0] + wide_head * k_strides[1], key_inside, D, BLOCK_D, WIDEN)
    v_ND = load_rows(v, row * v_strides[0] + wide_head * v_strides[1], key_inside, DV, BLOCK_DV, WIDEN)
    grad_k_ND = tl.zeros([N, BLOCK_D], tl.float32)
    grad_v_ND = tl.zeros([N, BLOCK_DV], tl.float32)
    low = at // M * M if CAUSAL else 0
    walk = tl.where(at < length, tl.cdiv(length - low, M), 0)
    for i in range(walk * repeats):
        head = key_head * repeats + i // walk
        query = low + i % walk * M + tl.arange(0, M)
        inside = query < length
        token = start + query
        at_row = token * (heads * repeats) + head
        q_MD = load_rows(q, token * q_strides[0] + head.to(tl.int64) * q_strides[1], inside, D, BLOCK_D, WIDEN)
        grad_MD = load_rows(grad_out, at_row * DV, inside, DV, BLOCK_DV, WIDEN)
        lse_M = load_lse(lse, at_row, inside)
        delta_M = tl.load(delta + at_row, mask=inside, other=0.0)
        score_NM = tl.dot(k_ND, q_MD.T, input_precision=PRECISION) * (scale * LOG2E)
        # queries beyond the end are zero, and so are their gradients: they add nothing
        weight_NM = tl.math.exp2(score_NM - lse_M[None, :])
        if CAUSAL:
            weight_NM = tl.where(key[:, None] <= query[None, :], weight_NM, 0.0)
        grad_v_ND = tl.dot(weight_NM.to(grad_MD.dtype), grad_MD, grad_v_ND, input_precision=PRECISION)
        grad_weight_NM = tl.dot(v_ND, grad_MD.T, input_precision=PRECISION)
        grad_score_NM = weight_NM * (grad_weight_NM - delta_M[None, :])
        grad_k_ND = tl.dot(grad_score_NM.to(q_MD.dtype), q_MD, grad_k_ND, input_precision=PRECISION)
    key_row = row * heads + key_head
    store_rows(grad_k, grad_k_ND * scale, key_row * D, key_inside, D, BLOCK_D)
    store_rows(grad_v, grad_v_ND, key_row * DV, key_inside, DV, BLOCK_DV)
