"""Pieces of attention kernels in Triton that do not care which keys a query sees. Needs Triton.

M queries of a tile, N keys of a tile, D features.
"""

# mypy: allow-incomplete-defs
# only constexpr parameters of a kernel are annotated: to Triton, any other annotation is the type of an argument

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnomon.kernels import _triton
from gnomon.kernels._triton import Launch

LOG2E = tl.constexpr(1.4426950408889634)
MAX_HEAD_SIZE = 256
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def why_not(q: Tensor, v: Tensor) -> str | None:
    """Why attention kernels in Triton refuse these tensors; None when they take them."""
    reason = _triton.why_not(q.device)
    if reason is not None:
        return reason
    if q.dtype not in DTYPES:
        return f"the Triton kernels take float32, float16 and bfloat16; got {q.dtype}"
    size = max(q.shape[-1], v.shape[-1])
    if size > MAX_HEAD_SIZE:
        return f"the Triton kernels take heads of up to {MAX_HEAD_SIZE} features; got {size}"
    return None


def padded(size: int) -> int:
    """Features that a kernel computes with: tensor cores want a power of two, and at least 16."""
    wanted: int = max(16, triton.next_power_of_2(size))
    return wanted


def rows(x: Tensor) -> Tensor:
    """x with features next to each other: itself where it is so, else a copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def sizes(q: Tensor, v: Tensor, target: str) -> dict[str, object]:
    """What every attention kernel is compiled for."""
    return {
        "D": q.shape[-1],
        "DV": v.shape[-1],
        "BLOCK_D": padded(q.shape[-1]),
        "BLOCK_DV": padded(v.shape[-1]),
        "PRECISION": _triton.precision(q.dtype, target),
        "WIDEN": _triton.interpreted() and q.dtype == torch.bfloat16,
    }


@triton.jit
def load_rows(source, row, inside, D: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr):
    """[rows, BLOCK_D], zero where there is no row or no feature. row: int64, where each begins.

    WIDEN: to float32, because the interpreter multiplies bfloat16 wrongly.
    """
    feature = tl.arange(0, BLOCK_D)
    at = source + row[:, None] + feature[None, :]
    if D == BLOCK_D:
        block = tl.load(at, mask=inside[:, None], other=0.0)
    else:
        block = tl.load(at, mask=inside[:, None] & (feature[None, :] < D), other=0.0)
    if WIDEN:
        block = block.to(tl.float32)
    return block


@triton.jit
def store_rows(target, block, row, inside, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write [rows, BLOCK_D] to the rows that begin at `row`."""
    feature = tl.arange(0, BLOCK_D)
    at = target + row[:, None] + feature[None, :]
    tl.store(at, block.to(target.dtype.element_ty), mask=inside[:, None] & (feature[None, :] < D))


@triton.jit
def online_softmax(score_MN, max_M, sum_M):
    """One step of Milakov and Gimelshein 2018 (arXiv:1805.02867) in base 2: (weights, decay of the past, max, sum).

    Hidden keys score -inf; a query that has seen nothing yet keeps a maximum of -inf and a sum of zero.
    """
    new_max_M = tl.maximum(max_M, tl.max(score_MN, 1))
    shift_M = tl.where(new_max_M == float("-inf"), 0.0, new_max_M)
    weight_MN = tl.math.exp2(score_MN - shift_M[:, None])
    decay_M = tl.math.exp2(max_M - shift_M)
    return weight_MN, decay_M, new_max_M, sum_M * decay_M + tl.sum(weight_MN, 1)


@triton.jit
def logsumexp(max_M, sum_M):
    """Natural logarithm of the sum of exp(score); -inf for a query that saw nothing."""
    return tl.where(sum_M > 0.0, (max_M + tl.math.log2(tl.where(sum_M > 0.0, sum_M, 1.0))) / LOG2E, float("-inf"))


@triton.jit
def normalized(out_MD, sum_M):
    """The weighted sums over the sum of weights; zeros for a query that saw nothing."""
    return out_MD / tl.where(sum_M > 0.0, sum_M, 1.0)[:, None]


@triton.jit
def load_lse(lse, row, inside):
    """lse in base 2, so that exp2(score - lse) is the weight. A query that saw nothing has no weights to compute."""
    value = tl.load(lse + row, mask=inside, other=0.0)
    return tl.where(value == float("-inf"), 0.0, value) * LOG2E


@triton.jit
def delta_kernel(out, grad_out, grad_lse, delta, rows, DV: tl.constexpr, BLOCK_DV: tl.constexpr, ROWS: tl.constexpr):
    """delta = rowsum(dO O) - dlse for each token and head, rows of contiguous tensors."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    product = load_rows(out, row * DV, inside, DV, BLOCK_DV, True)
    product *= load_rows(grad_out, row * DV, inside, DV, BLOCK_DV, True)
    value = tl.sum(product, 1)
    if grad_lse is not None:
        value -= tl.load(grad_lse + row, mask=inside, other=0.0)
    tl.store(delta + row, value, mask=inside)


def delta_launch(grad_out: Tensor, grad_lse: Tensor | None, out: Tensor, delta: Tensor) -> Launch:
    """What both passes of a backward subtract: dS = P (dO V^T - delta). grad_out and delta are contiguous."""
    at_once = 32
    return Launch(
        delta_kernel,
        triton.cdiv(delta.numel(), at_once),
        {
            "out": out.contiguous(),
            "grad_out": grad_out,
            "grad_lse": None if grad_lse is None else grad_lse.contiguous(),
            "delta": delta,
            "rows": delta.numel(),
        },
        {"DV": out.shape[-1], "BLOCK_DV": padded(out.shape[-1]), "ROWS": at_once},
    )
