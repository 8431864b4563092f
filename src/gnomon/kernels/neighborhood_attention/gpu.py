"""Neighborhood attention on GPUs: the launches of the Triton kernels. Needs Triton; ask `_triton.why_not` first.

Axes: B batch, H query heads, G key/value heads, D head size (Dv of the values); tensors are heads-last.
"""

from math import e, log2, prod
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from gnomon.kernels import _triton
from gnomon.kernels._triton import Launch
from gnomon.kernels.neighborhood_attention.gpu_blocks import AXES, Blocks, Tile, blocks, three, tiles
from gnomon.kernels.neighborhood_attention.gpu_forward import forward_kernel
from gnomon.kernels.neighborhood_attention.problem import Problem

MAX_HEAD_SIZE = 256
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def why_not(q: Tensor, v: Tensor) -> str | None:
    """Why the Triton kernels refuse these tensors; None when they take them."""
    reason = _triton.why_not(q.device)
    if reason is not None:
        return reason
    if q.dtype not in DTYPES:
        return f"the Triton kernels take float32, float16 and bfloat16; got {q.dtype}"
    size = max(q.shape[-1], v.shape[-1])
    if size > MAX_HEAD_SIZE:
        return f"the Triton kernels take heads of up to {MAX_HEAD_SIZE} features; got {size}"
    return None


def forward(
    q: Tensor, k: Tensor, v: Tensor, problem: Problem, scale: float, rpb: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(out, lse) as `reference.neighborhood_attention`, by the fused kernel. Raises ValueError as `why_not` says."""
    _check(q, v)
    out, lse = q.new_empty(*q.shape[:-1], v.shape[-1]), q.new_empty(q.shape[:-1], dtype=torch.float32)
    if out.numel():
        forward_launch(q, k, v, out, lse, problem, scale, rpb).run()
    return out, lse


def forward_launch(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, problem: Problem, scale: float,
    rpb: Tensor | None = None, target: str | None = None, block: Blocks | None = None, tma: bool | None = None,
) -> Launch:  # fmt: skip
    """The launch behind `forward`. target, block, tma: chosen by the device where they are None."""
    target = target or _triton.target_of(q.device)
    block = block or blocks(target, q.dtype, max(q.shape[-1], v.shape[-1]), is_backward=False)
    tile_q, tile_k = tiles(problem, block.queries, block.keys)
    q, k, v = (_rows(x, problem) for x in (q, k, v))
    tma = _tma_fits(problem, target, q, k, v) if tma is None else tma
    grid = _Grid.of(problem, q, tile_q)
    return Launch(
        forward_kernel,
        grid.programs,
        {
            "q": _source(q, problem, tile_q, tma),
            "k": _source(k, problem, tile_k, tma),
            "v": _source(v, problem, tile_k, tma),
            "bias": None if rpb is None else rpb.contiguous(),
            "out": out,
            "lse": lse,
            "q_strides": _strides(q),
            "k_strides": _strides(k),
            "v_strides": _strides(v),
            "heads": q.shape[-2],
            "repeats": q.shape[-2] // k.shape[-2],
            "scale": scale * log2(e),
            **grid.arguments,
        },
        {
            **_constants(problem, q, v, target, rpb, scale, tma),
            "TILE_Q": tile_q,
            "TILE_K": tile_k,
        },
        block.num_warps,
        block.num_stages,
    )


class _Grid(NamedTuple):
    """Programs of a launch, and the arguments that say what each of them does."""

    programs: int
    arguments: dict[str, Any]

    @classmethod
    def of(cls, problem: Problem, x: Tensor, tile: Tile) -> "_Grid":
        """One program for each tile of each head of x in each dilation group."""
        n, w, d = three(problem.space), three(problem.kernel_size), three(problem.dilation)
        counts = tuple(
            triton.cdiv(triton.cdiv(length, step), side) for length, step, side in zip(n, d, tile, strict=True)
        )
        programs = prod(counts) * x.shape[-2] * prod(d) * x.shape[0]
        return cls(programs, {"n": n, "w": w, "d": d, "tiles": counts})


def _constants(
    problem: Problem, q: Tensor, v: Tensor, target: str, rpb: Tensor | None, scale: float, tma: bool
) -> dict[str, Any]:
    """What every kernel is compiled for. Lengths, windows and dilations are not among it: images differ in size."""
    size, v_size = q.shape[-1], v.shape[-1]
    return {
        "D": size,
        "DV": v_size,
        "BLOCK_D": max(16, triton.next_power_of_2(size)),
        "BLOCK_DV": max(16, triton.next_power_of_2(v_size)),
        "AXES": len(problem.space),
        "S": three(problem.stride),
        "CAUSAL": (False,) * (AXES - len(problem.space)) + problem.is_causal,
        "BIASED": rpb is not None,
        # else the maximum is taken before the scale, which saves a product but needs a scale above zero
        "SCALE_FIRST": rpb is not None or scale <= 0,
        "PRECISION": _triton.precision(q.dtype, target),
        "TMA": tma,
        "WIDEN": _triton.interpreted() and q.dtype == torch.bfloat16,
    }


def _check(q: Tensor, v: Tensor) -> None:
    reason = why_not(q, v)
    if reason is not None:
        raise ValueError(f"q: {reason}")


def _rows(x: Tensor, problem: Problem) -> Tensor:
    """[B, n, heads, D] with features next to each other: a view where strides allow it, else a copy."""
    rows = x.flatten(1, len(problem.space))
    return rows if rows.stride(-1) == 1 or rows.shape[-1] == 1 else rows.contiguous()


def _strides(rows: Tensor) -> tuple[int, int, int]:
    return rows.stride(0), rows.stride(1), rows.stride(2)


def _tma_fits(problem: Problem, target: str, *rows: Tensor) -> bool:
    """Whether the bulk copies of Hopper and Blackwell can load boxes of tokens straight from these tensors.

    One descriptor has five axes: batch, three of tokens, and heads times features. So heads must lie next to each other
    and be as wide as their block; strides are multiples of 16 bytes; dilation would need more axes.
    """
    if target not in ("sm_90", "sm_100") or any(d > 1 for d in problem.dilation):
        return False
    return all(
        x.stride(-2) == x.shape[-1]
        and x.shape[-1] == max(16, triton.next_power_of_2(x.shape[-1]))
        and all(stride * x.element_size() % 16 == 0 for stride in x.stride()[:2])
        and x.data_ptr() % 16 == 0
        for x in rows
    )


def _source(rows: Tensor, problem: Problem, tile: Tile, tma: bool) -> Tensor | TensorDescriptor:
    """What a kernel loads tiles from: see `gpu_windows.load_tile`."""
    if not tma:
        return rows
    n = three(problem.space)
    batch, token, _, _ = rows.stride()
    size = rows.shape[-1]
    return TensorDescriptor(
        rows,
        [rows.shape[0], *n, rows.shape[-2] * size],
        [batch, n[1] * n[2] * token, n[2] * token, token, 1],
        [1, *tile, size],
    )
