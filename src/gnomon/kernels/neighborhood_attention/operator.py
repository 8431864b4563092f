"""`torch.ops.gnomon.neighborhood_attention`: schema, checks, autograd, and who computes it on which device.

The operator takes plain lists so that torch.compile can trace it; the windows are those of `problem.py`. Its gradient
is an operator too, and takes the gradient of the logsumexp into account, so that attentions merged by it can train.
Axes: B batch, H query heads, G key/value heads (G divides H), D head size, W = 2 w - 1 along each axis.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnomon.kernels.neighborhood_attention import cpu
from gnomon.kernels.neighborhood_attention.checks import check_attention, check_bias
from gnomon.kernels.neighborhood_attention.problem import MAX_AXES, Problem

_NAME = "gnomon::neighborhood_attention"
_WINDOW = "int[] kernel_size, int[] stride, int[] dilation, bool[] is_causal, float scale, Tensor? rpb"
_LIBRARY = torch.library.Library("gnomon", "FRAGMENT")
_LIBRARY.define(f"neighborhood_attention(Tensor q, Tensor k, Tensor v, {_WINDOW}) -> (Tensor out, Tensor lse)")
_LIBRARY.define(
    "neighborhood_attention_backward(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, "
    f"Tensor lse, {_WINDOW}) -> (Tensor dq, Tensor dk, Tensor dv, Tensor drpb)"
)

Window = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[bool]]


def attend(
    q: Tensor, k: Tensor, v: Tensor, problem: Problem, scale: float, rpb: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(out, lse) of neighborhood attention by the kernel of q's device; both are differentiable.

    q: [B, *space, H, D]; k, v: [B, *space, G, D]; one floating dtype, one device. rpb: [H, 2 w - 1 for each axis], any
    floating dtype. Returns [B, *space, H, D] in q's dtype and [B, *space, H]: the natural logsumexp of the scaled and
    biased scores, float32 (float64 for float64). Raises ValueError naming the argument that does not fit.
    """
    if tuple(q.shape[1:-2]) != problem.space:
        raise ValueError(f"q has the grid {list(q.shape[1:-2])}; the problem is on {list(problem.space)}")
    window = [list(x) for x in (problem.kernel_size, problem.stride, problem.dilation, problem.is_causal)]
    return torch.ops.gnomon.neighborhood_attention(q, k, v, *window, float(scale), rpb)


def _problem(q: Tensor, k: Tensor, v: Tensor, window: Window, rpb: Tensor | None) -> Problem:
    """The checked problem: whoever calls the operator itself must not reach C++ with shapes that disagree."""
    check_attention(("q", q), ("k", k), ("v", v))
    if not 4 <= q.dim() <= MAX_AXES + 3:
        raise ValueError(f"q must be [batch, *space, heads, head size] with 1 to {MAX_AXES} axes; got {q.dim()} axes")
    if k.shape[1:-2] != q.shape[1:-2]:
        raise ValueError(f"k has the grid {list(k.shape[1:-2])} and q {list(q.shape[1:-2])}; wanted one grid")
    if v.shape[-1] != q.shape[-1]:
        raise ValueError(f"v has head size {v.shape[-1]} and q {q.shape[-1]}; wanted one size")
    problem = Problem(tuple(q.shape[1:-2]), *(tuple(x) for x in window))  # type: ignore[arg-type]
    if rpb is not None:
        check_bias(rpb, q.shape[-2], problem.kernel_size, q)
    return problem


def _lse_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


@torch.library.register_fake(_NAME, lib=_LIBRARY)
def _fake(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=_lse_dtype(q))


@torch.library.register_fake(f"{_NAME}_backward", lib=_LIBRARY)
def _fake_backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *window: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rpb = window[-1]
    return (*(x.new_empty(x.shape) for x in (q, k, v)), q.new_empty(0) if rpb is None else rpb.new_empty(rpb.shape))  # type: ignore[return-value]


def _module(device_type: str) -> Any:
    if device_type == "cpu":
        return cpu
    from gnomon.kernels.neighborhood_attention import gpu  # triton is an extra

    return gpu


def _forward_on(device_type: str) -> Any:
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        is_causal: Sequence[bool],
        scale: float,
        rpb: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        problem = _problem(q, k, v, (kernel_size, stride, dilation, is_causal), rpb)
        return _module(device_type).forward(q, k, v, problem, scale, rpb)

    return forward


def _backward_on(device_type: str) -> Any:
    def backward(
        grad_out: Tensor,
        grad_lse: Tensor | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        is_causal: Sequence[bool],
        scale: float,
        rpb: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        problem = _problem(q, k, v, (kernel_size, stride, dilation, is_causal), rpb)
        for name, x, like in (("grad_out", grad_out, q), ("out", out, q), ("lse", lse, q[..., 0])):
            if x.shape != like.shape or (name != "lse" and x.dtype != q.dtype):
                raise ValueError(
                    f"{name} must be {tuple(like.shape)} in {like.dtype}; got {tuple(x.shape)} in {x.dtype}"
                )
        if grad_lse is not None and grad_lse.shape != lse.shape:
            raise ValueError(f"grad_lse must be {tuple(lse.shape)}; got {tuple(grad_lse.shape)}")
        *gradients, drpb = _module(device_type).backward(grad_out, grad_lse, q, k, v, out, lse, problem, scale, rpb)
        return (*gradients, q.new_empty(0) if drpb is None else drpb)

    return backward


for _key, _type in (("CPU", "cpu"), ("CUDA", "cuda")):
    _LIBRARY.impl("neighborhood_attention", _forward_on(_type), _key)
    _LIBRARY.impl("neighborhood_attention_backward", _backward_on(_type), _key)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, *ctx.window, rpb = inputs
    ctx.save_for_backward(q, k, v, *output, rpb)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    q, k, v, out, lse, rpb = ctx.saved_tensors
    none = (None,) * 5
    if grad_out is None and grad_lse is None:
        return None, None, None, *none, None
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    dq, dk, dv, drpb = torch.ops.gnomon.neighborhood_attention_backward(
        grad_out, grad_lse, q, k, v, out, lse, *ctx.window, rpb
    )
    return dq, dk, dv, *none, None if rpb is None else drpb


torch.library.register_autograd(_NAME, _gradient, setup_context=_save, lib=_LIBRARY)


def _refuse(ctx: Any, *_: Tensor | None) -> tuple[Any, ...]:
    raise RuntimeError(
        "neighborhood attention has no second derivative; for one, differentiate reference.neighborhood_attention"
    )


torch.library.register_autograd(f"{_NAME}_backward", _refuse, lib=_LIBRARY)
