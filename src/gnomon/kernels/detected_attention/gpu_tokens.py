"""Attention of each query over single kept keys in Triton: rows are gathered, products are sums along them.

No tensor cores: keys that each query picks for itself leave nothing to share, so memory bounds this. For dK and dV the
lists are turned around (`_triton_kept.seen_by`), so that one program owns a key: no atomics, fixed order of sums.
C kept keys, or queries of a key, at a time; D features.
"""

# mypy: allow-incomplete-defs
# only constexpr parameters of a kernel are annotated: to Triton, any other annotation is the type of an argument

import triton
import triton.language as tl

from gnomon.kernels._triton_attention import LOG2E, load_rows


@triton.jit
def load_row(source, start, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One row, [BLOCK_D] in float32."""
    feature = tl.arange(0, BLOCK_D)
    return tl.load(source + start + feature, mask=feature < D, other=0.0).to(tl.float32)


@triton.jit
def store_row(target, row, start, D: tl.constexpr, BLOCK_D: tl.constexpr):
    feature = tl.arange(0, BLOCK_D)
    tl.store(target + start + feature, row.to(target.dtype.element_ty), mask=feature < D)


@triton.jit
def forward_kernel(
    q, k, v, index, count, out, lse,
    q_strides, k_strides, v_strides,  # of batch, head and token
    heads, repeats, queries, kept, scale,  # log2(e) is in the scale
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    query, head, batch = row % queries, row // queries % heads, row // queries // heads
    key_head = head // repeats
    q_D = load_row(q, batch * q_strides[0] + head * q_strides[1] + query * q_strides[2], D, BLOCK_D)
    count_here = tl.load(count + row)
    top = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    out_D = tl.zeros([BLOCK_DV], tl.float32)
    for at in range(0, count_here, C):
        place = at + tl.arange(0, C)
        is_kept = place < count_here
        key = tl.load(index + row * kept + place, mask=is_kept, other=0).to(tl.int64)
        k_CD = load_rows(
            k, batch * k_strides[0] + key_head * k_strides[1] + key * k_strides[2], is_kept, D, BLOCK_D, True
        )
        score_C = tl.where(is_kept, tl.sum(k_CD * q_D[None, :], 1) * scale, float("-inf"))
        new_top = tl.maximum(top, tl.max(score_C, 0))
        weight_C = tl.math.exp2(score_C - new_top)  # every step keeps at least one key, so new_top is finite
        decay = tl.math.exp2(top - new_top)
        total = total * decay + tl.sum(weight_C, 0)
        v_CD = load_rows(
            v, batch * v_strides[0] + key_head * v_strides[1] + key * v_strides[2], is_kept, DV, BLOCK_DV, True
        )
        out_D = out_D * decay + tl.sum(v_CD * weight_C[:, None], 0)
        top = new_top
    is_empty = count_here == 0
    divisor = tl.where(is_empty, 1.0, total)
    store_row(out, out_D / divisor, row * DV, DV, BLOCK_DV)
    tl.store(lse + row, tl.where(is_empty, float("-inf"), (top + tl.math.log2(divisor)) / LOG2E))


@triton.jit
def grad_query_kernel(
    q, k, v, index, count, grad_out, lse, delta, grad_q,
    q_strides, k_strides, v_strides,
    heads, repeats, queries, kept, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """dQ = scale dS K over the kept keys of one query."""
    row = tl.program_id(0).to(tl.int64)
    query, head, batch = row % queries, row // queries % heads, row // queries // heads
    key_head = head // repeats
    q_D = load_row(q, batch * q_strides[0] + head * q_strides[1] + query * q_strides[2], D, BLOCK_D)
    grad_D = load_row(grad_out, row * DV, DV, BLOCK_DV)
    lse_here, delta_here, count_here = tl.load(lse + row) * LOG2E, tl.load(delta + row), tl.load(count + row)
    grad_q_D = tl.zeros([BLOCK_D], tl.float32)
    for at in range(0, count_here, C):
        place = at + tl.arange(0, C)
        is_kept = place < count_here
        key = tl.load(index + row * kept + place, mask=is_kept, other=0).to(tl.int64)
        k_CD = load_rows(
            k, batch * k_strides[0] + key_head * k_strides[1] + key * k_strides[2], is_kept, D, BLOCK_D, True
        )
        v_CD = load_rows(
            v, batch * v_strides[0] + key_head * v_strides[1] + key * v_strides[2], is_kept, DV, BLOCK_DV, True
        )
        score_C = tl.sum(k_CD * q_D[None, :], 1) * (scale * LOG2E)
        weight_C = tl.where(is_kept, tl.math.exp2(score_C - lse_here), 0.0)
        grad_score_C = weight_C * (tl.sum(v_CD * grad_D[None, :], 1) - delta_here)
        grad_q_D += tl.sum(k_CD * grad_score_C[:, None], 0)
    store_row(grad_q, grad_q_D * scale, row * D, D, BLOCK_D)


@triton.jit
def grad_key_kernel(
    q, k, v, owner, begin, grad_out, lse, delta, grad_k, grad_v,
    q_strides, k_strides, v_strides,
    heads, repeats, queries, keys, scale,  # key heads; query heads of each
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """dV = P^T dO and dK = scale dS^T Q over the queries that keep one key."""
    row = tl.program_id(0).to(tl.int64)
    key, key_head, batch = row % keys, row // keys % heads, row // keys // heads
    k_D = load_row(k, batch * k_strides[0] + key_head * k_strides[1] + key * k_strides[2], D, BLOCK_D)
    v_D = load_row(v, batch * v_strides[0] + key_head * v_strides[1] + key * v_strides[2], DV, BLOCK_DV)
    start = tl.load(begin + row)
    walk = (tl.load(begin + row + 1) - start).to(tl.int32)
    grad_k_D = tl.zeros([BLOCK_D], tl.float32)
    grad_v_D = tl.zeros([BLOCK_DV], tl.float32)
    for at in range(0, walk, C):
        place = at + tl.arange(0, C)
        is_here = place < walk
        who = tl.load(owner + start + place, mask=is_here, other=0).to(tl.int64)
        head, query = key_head * repeats + who // queries, who % queries
        out_row = (batch * (heads * repeats) + head) * queries + query
        q_CD = load_rows(
            q, batch * q_strides[0] + head * q_strides[1] + query * q_strides[2], is_here, D, BLOCK_D, True
        )
        grad_CD = load_rows(grad_out, out_row * DV, is_here, DV, BLOCK_DV, True)
        lse_C = tl.load(lse + out_row, mask=is_here, other=0.0) * LOG2E
        delta_C = tl.load(delta + out_row, mask=is_here, other=0.0)
        score_C = tl.sum(q_CD * k_D[None, :], 1) * (scale * LOG2E)
        weight_C = tl.where(is_here, tl.math.exp2(score_C - lse_C), 0.0)
        grad_v_D += tl.sum(grad_CD * weight_C[:, None], 0)
        grad_score_C = weight_C * (tl.sum(grad_CD * v_D[None, :], 1) - delta_C)
        grad_k_D += tl.sum(q_CD * grad_score_C[:, None], 0)
    store_row(grad_k, grad_k_D * scale, row * D, D, BLOCK_D)
    store_row(grad_v, grad_v_D, row * DV, DV, BLOCK_DV)
