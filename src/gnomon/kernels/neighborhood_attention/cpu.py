"""Neighborhood attention on a CPU: cpu.cpp where a compiler is found, the dense reference otherwise and for float64."""

import ctypes
import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnomon.kernels import _native
from gnomon.kernels.neighborhood_attention import reference
from gnomon.kernels.neighborhood_attention.problem import MAX_AXES, Problem

_STORAGE = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class _Tensor(ctypes.Structure):
    """A tensor for C++: its address, and its strides in elements (batch, three axes, heads)."""

    _fields_ = (("data", ctypes.c_void_p), ("stride", ctypes.c_int64 * (MAX_AXES + 2)))


class _Args(ctypes.Structure):
    """`Args` of grid.h, member by member."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("storage", "batch", "heads", "kv_heads", "size", "is_backward", "threads")
        ),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_int64 * MAX_AXES) for name in ("length", "window", "dilation")),
        *((name, ctypes.c_void_p * MAX_AXES) for name in ("start", "end")),
        *((name, _Tensor) for name in ("q", "k", "v", "out", "lse", "grad_out", "grad_lse", "dq", "dk", "dv")),
        ("rpb", ctypes.c_void_p),
        ("drpb", ctypes.c_void_p),
        ("tile", ctypes.c_int64 * MAX_AXES),
        *((name, ctypes.c_int64) for name in ("chunks", "units", "padded", "most_keys", "most_rows")),
        *((name, ctypes.c_int64) for name in ("workspace_bytes", "partial_floats", "bias_floats")),
        ("workspace", ctypes.c_void_p),
        ("workspaces_taken", ctypes.c_int64),
        ("partial", ctypes.c_void_p),
        ("bias_partial", ctypes.c_void_p),
    )


_POINTER = ctypes.POINTER(_Args)
KERNELS = _native.Kernels(
    "neighborhood attention",
    Path(__file__).with_name("cpu.cpp"),
    {
        "plan": [_POINTER],
        "forward": [_POINTER, ctypes.c_void_p],
        "backward": [_POINTER, ctypes.c_void_p],
        "reduce": [_POINTER, ctypes.c_void_p],
    },
)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    problem: Problem,
    scale: float,
    rpb: Tensor | None = None,
    isa: str | None = None,
    kernels: _native.Kernels = KERNELS,
) -> tuple[Tensor, Tensor]:
    """(out, lse), contiguous; arguments as in `reference.neighborhood_attention`. isa: None for the best one here."""
    library = kernels.get(isa) if q.dtype in _STORAGE else None
    wide = torch.promote_types(q.dtype, torch.float32)
    if q.numel() == 0:
        return q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=wide)
    if library is None:
        out, lse = reference.neighborhood_attention(q, k, v, problem, scale, rpb)
        return out.contiguous(), lse.contiguous()
    out, lse = torch.empty(q.shape, dtype=q.dtype), torch.empty(q.shape[:-1], dtype=wide)
    call = _Call(library, problem, scale, {"q": q, "k": k, "v": v, "out": out, "lse": lse}, rpb)
    call.run("forward", call.args.units)
    return out, lse


def backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    problem: Problem,
    scale: float,
    rpb: Tensor | None = None,
    isa: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(dq, dk, dv, drpb or None), contiguous; arguments as in `reference.backward`. isa: None for the best one here.

    The sums run in one order whatever the number of threads, so equal inputs give equal bits.
    """
    library = KERNELS.get(isa) if q.dtype in _STORAGE else None
    if q.numel() == 0:
        zeros = (torch.zeros(x.shape, dtype=x.dtype) for x in (q, k, v))
        return *zeros, None if rpb is None else torch.zeros_like(rpb)  # type: ignore[return-value]
    if library is None:
        found = reference.backward(grad_out, grad_lse, q, k, v, out, lse, problem, scale, rpb)
        return *(x.contiguous() for x in found[:3]), found[3]  # type: ignore[return-value]
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    given = {"q": q, "k": k, "v": v, "out": out, "lse": lse, "grad_out": grad_out, "grad_lse": grad_lse}
    call = _Call(library, problem, scale, {**given, "dq": dq, "dk": dk, "dv": dv}, rpb, is_backward=True)
    call.run("backward", call.args.units)
    items = (call.args.units // call.args.chunks if call.args.chunks > 1 else 0) + (0 if rpb is None else q.shape[-2])
    if items:
        call.run("reduce", items)
    return dq, dk, dv, None if rpb is None else call.drpb.to(rpb.dtype)


def extra_bytes(q: Tensor, k: Tensor, problem: Problem, has_rpb: bool = False, is_backward: bool = False) -> int:
    """What a call allocates besides its outputs: packed rows and lists per thread, partial sums of the gradients."""
    rpb = torch.empty(q.shape[-2], *(2 * w - 1 for w in problem.kernel_size)) if has_rpb else None
    return _Call(KERNELS.library(_native.isas()[0]), problem, 1.0, {"q": q, "k": k}, rpb, is_backward).bytes


class _Call:
    """The arguments of one call and the memory it needs; keeps alive what C++ reads."""

    def __init__(
        self,
        library: ctypes.CDLL,
        problem: Problem,
        scale: float,
        tensors: dict[str, Tensor | None],
        rpb: Tensor | None,
        is_backward: bool = False,
    ) -> None:
        q, k = tensors["q"], tensors["k"]
        assert q is not None
        assert k is not None
        missing = MAX_AXES - len(problem.space)
        self.library, self.args, self.threads = library, _Args(), torch.get_num_threads()
        args = self.args
        args.storage, args.batch, args.heads, args.kv_heads = _STORAGE[q.dtype], q.shape[0], q.shape[-2], k.shape[-2]
        args.size, args.is_backward, args.threads, args.scale = q.shape[-1], is_backward, self.threads, scale
        self.bounds = _bounds(problem)
        for x in range(MAX_AXES):
            is_axis = x < len(problem.space)
            args.length[x] = problem.space[x] if is_axis else 1
            args.window[x] = problem.kernel_size[x] if is_axis else 1
            args.dilation[x] = problem.dilation[x] if is_axis else 1
            args.start[x], args.end[x] = (bound.ctypes.data for bound in self.bounds[x])
        self.kept = []
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            if name.endswith("lse"):
                tensor = tensor.to(torch.float32)
            elif tensor.stride(-1) != 1:
                tensor = tensor.contiguous()
            self.kept.append(tensor)
            strides = tensor.stride()[: len(problem.space) + 1]
            heads = tensor.stride(len(problem.space) + 1)
            setattr(args, name, _Tensor(tensor.data_ptr(), (*strides, *(0,) * missing, heads)))
        if rpb is not None:
            self.rpb = rpb.to(torch.float32).contiguous()
            self.drpb = torch.empty(self.rpb.shape if is_backward else 0)
            args.rpb, args.drpb = self.rpb.data_ptr(), self.drpb.data_ptr()
        library.plan(ctypes.byref(args))
        self.partial_floats = args.units * args.partial_floats, args.units * args.bias_floats
        self.workspaces = min(self.threads, args.units + args.heads)  # no function takes more items than that
        self.bytes = self.workspaces * args.workspace_bytes + 4 * sum(self.partial_floats)

    def run(self, function: str, items: int) -> None:
        """Have every thread take from `items`."""
        args = self.args
        if not args.workspace:
            self.workspace = torch.empty(self.workspaces, args.workspace_bytes, dtype=torch.uint8)
            self.partial, self.bias_partial = (torch.empty(floats) for floats in self.partial_floats)
            args.workspace, args.partial = self.workspace.data_ptr(), self.partial.data_ptr()
            args.bias_partial = self.bias_partial.data_ptr()
        args.workspaces_taken = 0
        entry = getattr(self.library, function)
        _native.parallel(lambda counter: entry(ctypes.byref(args), counter), items)


@functools.lru_cache(maxsize=64)
def _bounds(problem: Problem) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Windows of every axis, group after group: first key and the one after the last, in group coordinates."""
    bounds = []
    for axis in problem.axes:
        groups = [axis.group_windows(group) for group in range(axis.dilation)]
        bounds.append((np.concatenate([g[0] for g in groups]), np.concatenate([g[1] for g in groups])))
    one = (np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64))
    return bounds + [one] * (MAX_AXES - len(bounds))
