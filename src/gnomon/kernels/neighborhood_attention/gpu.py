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
from gnomon.kernels._triton_attention import DTYPES, MAX_HEAD_SIZE, delta_launch, padded, sizes, why_not
from gnomon.kernels._triton_attention import rows as feature_rows
from gnomon.kernels._triton_blocks import Blocks, blocks
from gnomon.kernels.neighborhood_attention import reference
from gnomon.kernels.neighborhood_attention.gpu_backward import (
    grad_bias_kernel,
    grad_key_kernel,
    grad_query_kernel,
)
from gnomon.kernels.neighborhood_attention.gpu_blocks import AXES, Tile, three, tiles
from gnomon.kernels.neighborhood_attention.gpu_forward import forward_kernel
from gnomon.kernels.neighborhood_attention.problem import Problem

__all__ = ["DTYPES", "MAX_HEAD_SIZE", "Tuning", "backward", "forward", "why_not"]


class Tuning(NamedTuple):
    """How to launch; what is None is chosen for the device. tma: load boxes by the bulk copies of Hopper, Blackwell.

    specialize: give loads, products and softmax of the forward kernel warps of their own (Triton does so on Blackwell
    only). Off until it has been timed on one.
    """

    target: str | None = None
    block: Blocks | None = None
    tma: bool | None = None
    specialize: bool = False


_AUTO = Tuning()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    problem: Problem,
    scale: float,
    rpb: Tensor | None = None,
    tuning: Tuning = _AUTO,
) -> tuple[Tensor, Tensor]:
    """(out, lse) as `reference.neighborhood_attention`, by the fused kernel; float64 by the reference itself.

    Raises ValueError as `why_not` says.
    """
    if q.dtype == torch.float64:
        out, lse = reference.neighborhood_attention(q, k, v, problem, scale, rpb)
        return out.contiguous(), lse.contiguous()
    _check(q, v)
    out, lse = q.new_empty(*q.shape[:-1], v.shape[-1]), q.new_empty(q.shape[:-1], dtype=torch.float32)
    if out.numel():
        forward_launch(q, k, v, out, lse, problem, scale, rpb, tuning).run()
    return out, lse


def forward_launch(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, problem: Problem, scale: float,
    rpb: Tensor | None = None, tuning: Tuning = _AUTO,
) -> Launch:  # fmt: skip
    """The launch behind `forward`: it writes out and lse, which are contiguous."""
    plan = _Plan.of("forward", q, k, v, problem, tuning)
    tile_q, tile_k = tiles(problem, plan.block.queries, plan.block.keys)
    programs, grid = _grid(problem, q.shape[0] * q.shape[-2], tile_q)
    return Launch(
        forward_kernel,
        programs,
        {
            **plan.sources(problem, ("k", "v"), tile_k),
            "bias": rpb if rpb is None else rpb.contiguous(),
            "out": out,
            "lse": lse,
            "heads": q.shape[-2],
            "scale": scale * log2(e),
            **grid,
        },
        {
            **plan.constants(problem, rpb),
            "TILE_Q": tile_q,
            "TILE_K": tile_k,
            # else the maximum is taken before the scale, which saves a product but needs a scale above zero
            "SCALE_FIRST": rpb is not None or scale <= 0,
            "SPECIALIZE": tuning.specialize,
        },
        plan.block.num_warps,
        plan.block.num_stages,
    )


def backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    problem: Problem, scale: float, rpb: Tensor | None = None, tuning: Tuning = _AUTO,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """(dq, dk, dv, drpb) in the dtypes of q, k, v and rpb; the same bits at every call.

    out, lse: of `forward`. grad_lse: None where nobody used lse. float64 goes to the reference. Raises ValueError as
    `why_not` says.
    """
    if q.dtype == torch.float64:
        return reference.backward(grad_out, grad_lse, q, k, v, out, lse, problem, scale, rpb)
    _check(q, v)
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    drpb = None if rpb is None else torch.zeros(rpb.shape, dtype=rpb.dtype, device=rpb.device)
    if q.numel() == 0 or v.numel() == 0:
        return dq.zero_(), dk.zero_(), dv.zero_(), drpb
    grad_out, lse = grad_out.contiguous(), lse.contiguous()
    delta = torch.empty_like(lse)
    delta_launch(grad_out, grad_lse, out, delta).run()
    for launch in backward_launches(grad_out, q, k, v, lse, delta, dq, dk, dv, problem, scale, rpb, tuning):
        launch.run()
    if rpb is not None:
        launch = grad_bias_launch(grad_out, q, k, v, lse, delta, problem, scale, rpb)
        launch.run()
        drpb = launch.arguments["partial"].sum(0).to(rpb.dtype).view(rpb.shape)
    return dq, dk, dv, drpb


def backward_launches(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, dq: Tensor, dk: Tensor, dv: Tensor,
    problem: Problem, scale: float, rpb: Tensor | None = None, tuning: Tuning = _AUTO,
) -> tuple[Launch, Launch]:  # fmt: skip
    """The launches that write dq, and dk and dv; these, grad_out, lse and delta are contiguous."""
    bias = rpb if rpb is None else rpb.contiguous()
    launches = []
    for kernel, name, written in (
        (grad_query_kernel, "grad_query", {"grad_q": dq}),
        (grad_key_kernel, "grad_key", {"grad_k": dk, "grad_v": dv}),
    ):
        is_inverse = name == "grad_key"
        walked = ("q", "grad_out") if is_inverse else ("k", "v")
        plan = _Plan.of(name, q, k, v, problem, tuning, grad_out)
        if is_inverse:
            tile_k, tile_q = tiles(problem, plan.block.keys, plan.block.queries, is_inverse=True)
        else:
            tile_q, tile_k = tiles(problem, plan.block.queries, plan.block.keys)
        heads = (k if is_inverse else q).shape[-2]
        programs, grid = _grid(problem, q.shape[0] * heads, tile_k if is_inverse else tile_q)
        launch = Launch(
            kernel,
            programs,
            {
                **plan.sources(problem, walked, tile_q if is_inverse else tile_k),
                "bias": bias,
                "lse": lse,
                "delta": delta,
                **written,
                "heads": heads,
                "scale": scale,
                **grid,
            },
            {**plan.constants(problem, rpb), "TILE_Q": tile_q, "TILE_K": tile_k},
            plan.block.num_warps,
            plan.block.num_stages,
        )
        launches.append(launch)
    return launches[0], launches[1]


def grad_bias_launch(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor,
    problem: Problem, scale: float, rpb: Tensor,
) -> Launch:  # fmt: skip
    """The launch that writes argument "partial", [parts, heads, entries of the table]: its sum over parts is drpb."""
    plan = _Plan.of("grad_query", q, k, v, problem, Tuning(tma=False), grad_out)
    tile, _ = tiles(problem, 64, 64)
    programs, grid = _grid(problem, q.shape[0], tile)  # here the tiles of one head
    owners = rpb.numel()
    parts = min(programs, triton.cdiv(4096, owners))  # enough programs for a GPU, few partial tables
    constants = plan.constants(problem, rpb)
    return Launch(
        grad_bias_kernel,
        owners * parts,
        {
            **plan.sources(problem, (), tile),
            "bias": rpb.contiguous(),
            "lse": lse,
            "delta": delta,
            "partial": torch.empty(parts, *rpb.flatten(1).shape, dtype=torch.float32, device=q.device),
            "heads": q.shape[-2],
            "scale": scale,
            **grid,
            "items": programs,
            "parts": parts,
        },
        {name: constants[name] for name in ("D", "DV", "BLOCK_D", "BLOCK_DV", "S", "CAUSAL")} | {"TILE_Q": tile},
    )


class _Plan(NamedTuple):
    """What the launches of a call have in common: tensors as [B, n, heads, D], block sizes, how tiles are loaded."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad_out: Tensor | None
    target: str
    block: Blocks
    tma: bool

    @classmethod
    def of(
        cls, kernel: str, q: Tensor, k: Tensor, v: Tensor, problem: Problem, tuning: Tuning,
        grad_out: Tensor | None = None,
    ) -> "_Plan":  # fmt: skip
        target = tuning.target or _triton.target_of(q.device)
        block = tuning.block or blocks(target, q.dtype, max(q.shape[-1], v.shape[-1]), kernel)
        q, k, v = (_rows(x, problem) for x in (q, k, v))
        grad_out = None if grad_out is None else _rows(grad_out, problem)
        loaded = [x for x in (q, k, v, grad_out) if x is not None]
        tma = _tma_fits(problem, target, loaded) if tuning.tma is None else tuning.tma
        return cls(q, k, v, grad_out, target, block, tma)

    def sources(self, problem: Problem, walked: tuple[str, ...], tile: Tile) -> dict[str, Any]:
        """What kernels load tiles from, with its strides. walked: loaded again and again, by descriptors if tma."""
        tensors = {"q": self.q, "k": self.k, "v": self.v}
        if self.grad_out is not None:
            tensors["grad_out"] = self.grad_out
        loads: dict[str, Any] = {"repeats": self.q.shape[-2] // self.k.shape[-2]}
        for name, x in tensors.items():
            loads[name] = _boxes(x, problem, tile) if self.tma and name in walked else x
            loads[f"{name.replace('_out', '')}_strides"] = x.stride()[:3]
        return loads

    def constants(self, problem: Problem, rpb: Tensor | None) -> dict[str, Any]:
        """What kernels are compiled for. Lengths, windows, dilations are not among it: images differ in size."""
        return {
            **sizes(self.q, self.v, self.target),
            "AXES": len(problem.space),
            "S": three(problem.stride),
            "CAUSAL": (False,) * (AXES - len(problem.space)) + problem.is_causal,
            "BIASED": rpb is not None,
            "TMA": self.tma,
        }


def _grid(problem: Problem, heads: int, tile: Tile) -> tuple[int, dict[str, Any]]:
    """Programs, one for each tile of each head in each dilation group, and the arguments that place them."""
    n, w, d = three(problem.space), three(problem.kernel_size), three(problem.dilation)
    counts = tuple(triton.cdiv(triton.cdiv(length, step), side) for length, step, side in zip(n, d, tile, strict=True))
    return prod(counts) * prod(d) * heads, {"n": n, "w": w, "d": d, "tiles": counts}


def _check(q: Tensor, v: Tensor) -> None:
    reason = why_not(q, v)
    if reason is not None:
        raise ValueError(f"q: {reason}")


def _rows(x: Tensor, problem: Problem) -> Tensor:
    """[B, n, heads, D] with features next to each other: a view where strides allow it, else a copy."""
    return feature_rows(x.flatten(1, len(problem.space)))


def _tma_fits(problem: Problem, target: str, rows: list[Tensor]) -> bool:
    """Whether the bulk copies of Hopper and Blackwell can load boxes of tokens straight from these tensors.

    One descriptor has five axes: batch, three of tokens, and heads times features. So heads must lie next to each other
    and be as wide as their block; strides are multiples of 16 bytes; dilation would need more axes.
    """
    if target not in ("sm_90", "sm_100") or any(d > 1 for d in problem.dilation):
        return False
    return all(
        x.stride(-2) == x.shape[-1]
        and x.shape[-1] == padded(x.shape[-1])
        and all(stride * x.element_size() % 16 == 0 for stride in x.stride()[:2])
        and x.data_ptr() % 16 == 0
        for x in rows
    )


def _boxes(rows: Tensor, problem: Problem, tile: Tile) -> TensorDescriptor:
    """A descriptor from which a kernel loads tiles: see `gpu_windows.load_tile`."""
    n = three(problem.space)
    batch, token, _, _ = rows.stride()
    size = rows.shape[-1]
    return TensorDescriptor(
        rows,
        [rows.shape[0], *n, rows.shape[-2] * size],
        [batch, n[1] * n[2] * token, n[2] * token, token, 1],
        [1, *tile, size],
    )
