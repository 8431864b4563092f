"""Neighborhood attention on token grids of one to three axes, with the signatures of NATTEN 0.21: change the import.

    from gnomon.kernels.neighborhood_attention import na2d  # from natten import na2d

Hassani et al. 2023 (arXiv:2204.07143), dilation 2022 (arXiv:2209.15001), stride and even windows 2025
(arXiv:2504.16922). What a query sees is in `problem.py`, who computes it in `backends/`.
Axes: B batch, H query heads, G key/value heads (G divides H), D head size, M additional tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gnomon.kernels.neighborhood_attention import backends
from gnomon.kernels.neighborhood_attention.backends import natten
from gnomon.kernels.neighborhood_attention.backends.case import Case
from gnomon.kernels.neighborhood_attention.checks import (
    autocast,
    check_attention,
    check_bias,
    check_scale,
    check_tensors,
)
from gnomon.kernels.neighborhood_attention.dense import attention, attention_with_lse
from gnomon.kernels.neighborhood_attention.merge import merge_attentions
from gnomon.kernels.neighborhood_attention.problem import MAX_AXES, Bools, Ints, Problem

__all__ = ["attention", "na1d", "na2d", "na3d", "neighborhood_attention_generic", "why_not"]

# how NATTEN's kernels are to be cut; they choose no other result, so other backends need not know them
_TUNING = frozenset(
    {
        "q_tile_shape",
        "kv_tile_shape",
        "backward_q_tile_shape",
        "backward_kv_tile_shape",
        "backward_kv_splits",
        "backward_use_pt_reduction",
        "run_persistent_kernel",
        "kernel_schedule",
        "torch_compile",
    }
)

_NATIVE = {"cpu": "cpu", "cuda": "triton"}  # which of our backends the operator is on a type of device


def na1d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools | None = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    attention_kwargs: Mapping[str, Any] | None = None,
    backend: str | None = None,
    *,
    rpb: Tensor | None = None,
    return_lse: bool = False,
    **tuning: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """Neighborhood attention on sequences [B, L, H, D]; see `neighborhood_attention_generic`, and `na2d` for grids."""
    return _on_grid(1, query, key, value, kernel_size, stride, dilation, is_causal, scale, additional_keys,
                    additional_values, attention_kwargs, backend, rpb, return_lse, tuning)  # fmt: skip


def na2d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools | None = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    attention_kwargs: Mapping[str, Any] | None = None,
    backend: str | None = None,
    *,
    rpb: Tensor | None = None,
    return_lse: bool = False,
    **tuning: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """Neighborhood attention on feature maps [B, X, Y, H, D]; see `neighborhood_attention_generic`."""
    return _on_grid(2, query, key, value, kernel_size, stride, dilation, is_causal, scale, additional_keys,
                    additional_values, attention_kwargs, backend, rpb, return_lse, tuning)  # fmt: skip


def na3d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools | None = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    attention_kwargs: Mapping[str, Any] | None = None,
    backend: str | None = None,
    *,
    rpb: Tensor | None = None,
    return_lse: bool = False,
    **tuning: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """Neighborhood attention on videos and volumes [B, T, X, Y, H, D]; see `neighborhood_attention_generic`."""
    return _on_grid(3, query, key, value, kernel_size, stride, dilation, is_causal, scale, additional_keys,
                    additional_values, attention_kwargs, backend, rpb, return_lse, tuning)  # fmt: skip


def neighborhood_attention_generic(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools | None = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    attention_kwargs: Mapping[str, Any] | None = None,
    backend: str | None = None,
    *,
    rpb: Tensor | None = None,
    return_lse: bool = False,
    **tuning: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention in which a query sees the window of its nearest keys, on a grid of as many axes as `query` has.

    query: [B, *space, H, D]. key, value: [B, *space, G, D] with G dividing H; query head h reads head h * G // H.
    kernel_size, stride, dilation, is_causal: one value, or one per axis. The window has exactly kernel_size keys, also
    at the edges, where it shifts inwards; groups of `stride` queries share one window; with dilation d a query sees
    every d-th key; under is_causal the window ends at the query. Wanted: kernel_size * dilation <= tokens of the axis
    and stride <= kernel_size. scale: of the scores, D ** -0.5 when None. additional_keys, additional_values:
    [B, M, G, D], tokens that every query also sees, within the same softmax. attention_kwargs: {'scale': ...,
    'backend': ...} of the attention to the additional tokens; NATTEN's others have no effect. rpb: a learned bias
    [H, 2 * kernel_size - 1 per axis], added to the score at the offset of key and query plus kernel_size - 1; with
    dilation, offsets count dilated steps. backend: 'auto' or None for the fastest, or a name out of
    `backends.BACKENDS`; NATTEN's own names need it installed. tuning: NATTEN's tile arguments, which only it obeys.

    Returns the output [B, *space, H, D] in the dtype of query; with return_lse also the natural logsumexp of the scores
    [B, *space, H] in float32 (float64 for float64). Differentiable in all tensors, the logsumexp included. Under
    autocast query, key, value and the additional ones are cast as for torch's scaled_dot_product_attention.
    Raises ValueError naming the argument; TypeError for an argument that does not exist.
    """
    axes = query.dim() - 3 if isinstance(query, Tensor) and not query.is_nested else 1
    return _on_grid(axes, query, key, value, kernel_size, stride, dilation, is_causal, scale, additional_keys,
                    additional_values, attention_kwargs, backend, rpb, return_lse, tuning)  # fmt: skip


def why_not(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools | None = False,
    *,
    rpb: Tensor | None = None,
    return_lse: bool = False,
) -> dict[str, str | None]:
    """Backend -> why it cannot run this call here, None where it can. Raises ValueError as the call itself would."""
    axes = query.dim() - 3 if isinstance(query, Tensor) and not query.is_nested else 1
    problem = _checked(axes, query, key, value, kernel_size, stride, dilation, is_causal, rpb)
    return backends.reasons(Case.of(query, key, value, problem, rpb, return_lse))


def _on_grid(
    axes: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints,
    dilation: Ints,
    is_causal: Bools | None,
    scale: float | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    attention_kwargs: Mapping[str, Any] | None,
    backend: str | None,
    rpb: Tensor | None,
    return_lse: bool,
    tuning: Mapping[str, Any],
) -> Tensor | tuple[Tensor, Tensor]:
    for name in tuning:
        if name not in _TUNING:
            raise TypeError(f"na{axes}d() got an unexpected keyword argument {name!r}")
    query, key, value, additional_keys, additional_values = autocast(
        query, key, value, additional_keys, additional_values
    )
    problem = _checked(axes, query, key, value, kernel_size, stride, dilation, is_causal, rpb)
    _check_additional(query, key, value, additional_keys, additional_values)
    scale = check_scale(scale, query.shape[-1])
    has_additional = additional_keys is not None and additional_keys.shape[1] > 0
    out, lse = _attend(query, key, value, problem, scale, rpb, return_lse or has_additional, backend, tuning)
    if has_additional:
        assert additional_keys is not None
        assert additional_values is not None
        assert lse is not None
        other, other_lse = _to_additional(query, additional_keys, additional_values, scale, attention_kwargs or {})
        out, lse = merge_attentions([out, other], [lse, other_lse])
    return (out, lse) if return_lse else out  # type: ignore[return-value]  # asked for, so it is there


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    problem: Problem,
    scale: float,
    rpb: Tensor | None,
    needs_lse: bool,
    name: str | None,
    tuning: Mapping[str, Any],
) -> tuple[Tensor, Tensor | None]:
    automatic = name is None or name == backends.AUTO
    is_native = automatic or name == _NATIVE.get(query.device.type)
    if is_native and torch.compiler.is_compiling() and query.shape[-1] == value.shape[-1]:
        # the operator is one node of the graph and finds its kernel at run time; a choice would have to be traced
        return backends.native.cpu.run(query, key, value, problem, scale, rpb, needs_lse)
    if query.numel() == 0:
        return backends.reference.backend.run(query, key, value, problem, scale, rpb, needs_lse)
    case = Case.of(query, key, value, problem, rpb, needs_lse)
    if automatic:
        return backends.chosen(case).run(query, key, value, problem, scale, rpb, needs_lse)
    assert name is not None
    if name in natten.OWN_BACKENDS:
        backends.named("natten", case)  # raises with the reason
        tuning, name = {"backend": name, **tuning}, "natten"
    if name == "natten":
        backends.named("natten", case)
        return natten.backend.run(query, key, value, problem, scale, rpb, needs_lse, **tuning)
    return backends.named(name, case).run(query, key, value, problem, scale, rpb, needs_lse)


def _to_additional(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, options: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Dense attention of every query to [B, M, G, D], in the layout of the grid."""
    own_scale = options.get("scale")
    scale = scale if own_scale is None else check_scale(own_scale, query.shape[-1])
    out, lse = attention_with_lse(query.flatten(1, -3), keys, values, False, scale)
    space = query.shape[1:-2]
    return out.unflatten(1, space), lse.unflatten(1, space)


def _checked(
    axes: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints,
    dilation: Ints,
    is_causal: Bools | None,
    rpb: Tensor | None,
) -> Problem:
    check_tensors(("query", query), ("key", key), ("value", value))
    if not 1 <= axes <= MAX_AXES or query.dim() != axes + 3:
        wanted = f"{axes + 3} axes" if 1 <= axes <= MAX_AXES else f"4 to {MAX_AXES + 3} axes"
        raise ValueError(
            f"query has {query.dim()} axes ({list(query.shape)}); wanted {wanted}: [batch, *space, heads, head_dim]"
        )
    check_attention(("query", query), ("key", key), ("value", value))
    space = query.shape[1:-2]
    if key.shape[1:-2] != space:
        raise ValueError(f"key has the grid {list(key.shape[1:-2])} and query {list(space)}; wanted one grid")
    problem = Problem.of(space, kernel_size, stride, dilation, False if is_causal is None else is_causal)
    if rpb is not None:
        check_bias(rpb, query.shape[-2], problem.kernel_size, query)
    return problem


def _check_additional(
    query: Tensor, key: Tensor, value: Tensor, additional_keys: Tensor | None, additional_values: Tensor | None
) -> None:
    if additional_keys is None and additional_values is None:
        return
    if additional_keys is None or additional_values is None:
        missing = "additional_keys" if additional_keys is None else "additional_values"
        raise ValueError(f"{missing} is missing; additional_keys and additional_values go together")
    check_tensors(("query", query), ("additional_keys", additional_keys), ("additional_values", additional_values))
    flat = query.flatten(1, -3)
    check_attention(("query", flat), ("additional_keys", additional_keys), ("additional_values", additional_values))
    for name, extra, own in (
        ("additional_keys", additional_keys, key),
        ("additional_values", additional_values, value),
    ):
        if extra.shape[-2:] != own.shape[-2:]:
            raise ValueError(
                f"{name} has {extra.shape[-2]} heads of size {extra.shape[-1]}; wanted {own.shape[-2]} of size "
                f"{own.shape[-1]}, as in the grid"
            )
