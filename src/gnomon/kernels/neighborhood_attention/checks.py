"""The public edge: what every function of this folder checks, and casts, before anything runs.

The checks raise ValueError naming the argument.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Named = tuple[str, Tensor]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_tensors(*named: Named) -> None:
    """Dense floating tensors of one dtype on one device."""
    for name, tensor in named:
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor; got {type(tensor).__name__}")
        if tensor.is_nested:
            raise ValueError(f"{name} is a nested tensor; pad it, or call once per sequence")
        if tensor.layout != torch.strided:
            raise ValueError(f"{name} has layout {tensor.layout}; wanted a dense tensor: call .to_dense()")
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"{name} is {tensor.dtype}; wanted float32, bfloat16, float16 or float64")
    (first, one), *others = named
    for name, tensor in others:
        if tensor.dtype != one.dtype:
            raise ValueError(f"{name} is {tensor.dtype} and {first} is {one.dtype}; all must have one dtype")
        if tensor.device != one.device:
            raise ValueError(f"{name} is on {tensor.device} and {first} on {one.device}; all must be on one device")


def check_attention(query: Named, key: Named, value: Named) -> None:
    """Heads-last [B, tokens..., heads, D] of one rank: equal batch and D for query and key, equal heads and tokens for
    key and value, and key heads that divide the query's. The tokens of query and key are not compared."""
    check_tensors(query, key, value)
    (query_name, q), (key_name, k), (value_name, v) = query, key, value
    for name, tensor in (key, value):
        if tensor.dim() != q.dim():
            raise ValueError(f"{name} has {tensor.dim()} axes and {query_name} {q.dim()}; wanted one layout for all")
        if tensor.shape[0] != q.shape[0]:
            raise ValueError(f"{name} has batch {tensor.shape[0]} and {query_name} {q.shape[0]}; wanted one batch")
    for name, tensor in (query, key, value):
        if tensor.shape[-1] == 0:
            raise ValueError(f"{name} has head size 0 ({list(tensor.shape)}); wanted at least 1")
        if tensor.shape[-2] == 0 and q.shape[-2] != 0:
            raise ValueError(f"{name} has no heads ({list(tensor.shape)}); wanted at least 1")
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"{key_name} has head size {k.shape[-1]} and {query_name} {q.shape[-1]}; wanted one size")
    if k.shape[:-1] != v.shape[:-1]:
        raise ValueError(
            f"{value_name} is {list(v.shape)} and {key_name} {list(k.shape)}; wanted the same tokens and heads"
        )
    if q.shape[-2] != 0 and q.shape[-2] % k.shape[-2]:
        raise ValueError(
            f"{key_name} has {k.shape[-2]} heads, which do not divide the {q.shape[-2]} heads of {query_name}"
        )


def check_scale(scale: float | None, head_dim: int) -> float:
    """The scale, D ** -0.5 for None only: 0.0 is a scale as well."""
    if scale is None:
        return float(head_dim**-0.5)
    # by comparison, which also refuses NaN, and which torch.compile traces where the scale is symbolic
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) <= sys.float_info.max:
        raise ValueError(f"scale must be a finite number or None for head_dim ** -0.5; got {scale!r}")
    return float(scale)


def check_bias(rpb: Tensor, heads: int, kernel_size: Sequence[int], like: Tensor) -> None:
    """A floating table [heads, 2 w - 1 for each axis] on the device of `like`."""
    check_tensors(("rpb", rpb))
    wanted = (heads, *(2 * w - 1 for w in kernel_size))
    if tuple(rpb.shape) != wanted:
        raise ValueError(f"rpb is {list(rpb.shape)}; wanted [heads, 2 * kernel_size - 1 per axis] = {list(wanted)}")
    if rpb.device != like.device:
        raise ValueError(f"rpb is on {rpb.device} and query on {like.device}; all must be on one device")


def autocast(*tensors: Tensor | None) -> list[Any]:
    """In the dtype of autocast where it is on; as torch does, float64 and what is no floating tensor stay."""
    query = tensors[0]
    if not isinstance(query, Tensor) or not torch.is_autocast_enabled(query.device.type):
        return list(tensors)
    dtype = torch.get_autocast_dtype(query.device.type)
    return [
        x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64 else x
        for x in tensors
    ]
