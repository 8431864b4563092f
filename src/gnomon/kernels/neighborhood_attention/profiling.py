"""All backends on one problem, side by side on this machine: what `backend='auto'` then goes by.

Calls are interleaved, one of each backend per round, so that a machine that slows down slows all of them; outputs and
gradients are compared with the first backend's before anything is timed.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import torch
from torch import Tensor

from gnomon.kernels.neighborhood_attention.backends import BACKENDS, forget, measured
from gnomon.kernels.neighborhood_attention.backends.backend import Backend
from gnomon.kernels.neighborhood_attention.backends.case import Case
from gnomon.kernels.neighborhood_attention.problem import Problem
from gnomon.kernels.neighborhood_attention.record import AttentionProfile, BackendTimes

# largest difference to the first backend, relative to the largest value: rounding of one dtype, summed in two orders
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_LEAST_ROUNDS = 3


def profile(
    problem: Problem,
    *,
    batch: int = 1,
    heads: int,
    heads_kv: int | None = None,
    head_dim: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    backward: bool = False,
    repeats: int = 20,
    backends: Sequence[str] | None = None,
    max_seconds: float = 120.0,
    remember: bool = True,
    progress: Callable[[str], None] = lambda text: None,
    table: Mapping[str, Backend] = BACKENDS,
) -> AttentionProfile:
    """Time every backend on the problem, or those named in `backends`, and remember the times for backend='auto'.

    heads, heads_kv: of queries, and of keys and values (as many when None). device: 'cpu' or 'cuda'. backward: time
    forward and backward together. repeats: rounds; fewer, but at least 3, when they would take longer than
    max_seconds. remember: write what `backend='auto'` reads. progress: told what is going on. table: the backends that
    there are.
    A backend that cannot run, that fails, or whose result differs from the first one's is in `refused` with its reason.
    Raises ValueError naming the argument, also when no backend is left.
    """
    case = _case(problem, batch, heads, heads_kv, head_dim, dtype, device, backward)
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1; got {repeats}")
    names = tuple(table) if backends is None else tuple(backends)
    for name in names:
        if name not in table:
            raise ValueError(f"backends: {name!r} is not known; known: {', '.join(table)}")
    refused = {name: reason for name in names if (reason := table[name].why_not(case)) is not None}
    able = {name: table[name] for name in names if name not in refused}
    runs, first_calls, errors = _tried(able, _inputs(case), case, refused, progress)
    if not runs:
        why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ValueError(f"backends: none can run this problem. {why}")
    times = _timed(runs, repeats, max_seconds, case.device, progress)
    rows = [
        BackendTimes(
            name,
            min(t.cpu_s for t in times[name]),
            statistics.median(t.cpu_s for t in times[name]),
            min(t.wall_s for t in times[name]),
            statistics.median(t.wall_s for t in times[name]),
            first_calls[name],
            table[name].memory_bytes(case),
            errors[name],
            case.flop(case.pairs) / max(min(t.wall_s for t in times[name]), 1e-9),
        )
        for name in runs
    ]
    rows.sort(key=lambda row: row.wall_min_s)
    if remember:
        measured.keep(case, {row.name: row.wall_min_s for row in rows})
        forget()
    return AttentionProfile(
        problem.space,
        problem.kernel_size,
        problem.stride,
        problem.dilation,
        problem.is_causal,
        case.batch,
        case.heads,
        case.heads_kv,
        case.head_dim,
        str(dtype).removeprefix("torch."),
        device,
        backward,
        len(times[rows[0].name]),
        case.dense_pairs,
        case.pairs,
        measured.environment(case.device),
        datetime.now(UTC).isoformat(timespec="seconds"),
        tuple(rows),
        refused,
    )


class _Time(NamedTuple):
    cpu_s: float
    wall_s: float


class _Inputs(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    grad: Tensor


def _case(
    problem: Problem,
    batch: int,
    heads: int,
    heads_kv: int | None,
    head_dim: int,
    dtype: torch.dtype,
    device: str,
    backward: bool,
) -> Case:
    heads_kv = heads if heads_kv is None else heads_kv
    for name, value in (("batch", batch), ("heads", heads), ("heads_kv", heads_kv), ("head_dim", head_dim)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive int; got {value!r}")
    if heads % heads_kv:
        raise ValueError(f"heads_kv must divide heads; got {heads_kv} and {heads}")
    if dtype not in _TOLERANCE:
        raise ValueError(f"dtype must be float32, bfloat16, float16 or float64; got {dtype}")
    if problem.tokens == 0:
        raise ValueError(f"problem has no tokens: space {problem.space}")
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', and torch finds no GPU; `gnomon doctor` says why")
    return Case(problem, batch, heads, heads_kv, head_dim, head_dim, dtype, kind, needs_grad=backward)


def _inputs(case: Case) -> _Inputs:
    generator = torch.Generator().manual_seed(0)

    def normal(heads: int, size: int) -> Tensor:
        values = torch.randn(case.batch, *case.problem.space, heads, size, generator=generator)
        return values.to(case.device, case.dtype)

    q, k, v = (
        normal(case.heads, case.head_dim),
        normal(case.heads_kv, case.head_dim),
        normal(case.heads_kv, case.head_dim_v),
    )
    if case.needs_grad:
        q, k, v = (x.requires_grad_() for x in (q, k, v))
    return _Inputs(q, k, v, normal(case.heads, case.head_dim_v))


def _call(backend: Backend, inputs: _Inputs, case: Case) -> Callable[[], tuple[Tensor, ...]]:
    def call() -> tuple[Tensor, ...]:
        q, k, v, grad = inputs
        out, _ = backend.run(q, k, v, case.problem, case.head_dim**-0.5, None, False)
        return (out, *torch.autograd.grad(out, (q, k, v), grad)) if case.needs_grad else (out,)

    return call


def _tried(
    able: Mapping[str, Backend], inputs: _Inputs, case: Case, refused: dict[str, str], progress: Callable[[str], None]
) -> tuple[dict[str, Callable[[], tuple[Tensor, ...]]], dict[str, float], dict[str, float]]:
    """Calls that work and agree, wall seconds of their first call, and their largest error; the rest into `refused`."""
    runs: dict[str, Callable[[], tuple[Tensor, ...]]] = {}
    first_calls, errors = {}, {}
    expected: tuple[Tensor, ...] | None = None
    for name, backend in able.items():
        progress(f"{name}: first call")
        call = _call(backend, inputs, case)
        start = time.perf_counter()
        try:
            results = call()
        except Exception as error:  # other people's kernels raise anything; the profile goes on without them
            refused[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            continue
        _wait(case.device)
        first_call_s = time.perf_counter() - start
        expected = expected or results
        error_ratio = max(_error(result, wanted) for result, wanted in zip(results, expected, strict=True))
        if not error_ratio <= _TOLERANCE[case.dtype]:  # also refuses NaN
            refused[name] = (
                f"its result differs by {error_ratio:.2g} of the largest value from that of {next(iter(runs))}"
            )
            continue
        runs[name], first_calls[name], errors[name] = call, first_call_s, error_ratio
    return runs, first_calls, errors


def _error(result: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest value."""
    difference = (result.detach().double() - wanted.detach().double()).abs().max()
    return float(difference / wanted.detach().double().abs().max().clamp(min=1e-300))


def _timed(
    runs: dict[str, Callable[[], tuple[Tensor, ...]]],
    repeats: int,
    max_seconds: float,
    device: str,
    progress: Callable[[str], None],
) -> dict[str, list[_Time]]:
    times: dict[str, list[_Time]] = {name: [] for name in runs}
    begin = time.perf_counter()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for round_ in range(repeats):
            if round_ >= _LEAST_ROUNDS and time.perf_counter() - begin > max_seconds:
                break
            progress(f"round {round_ + 1} of {repeats}")
            for name, call in runs.items():
                cpu, wall = time.process_time(), time.perf_counter()
                call()
                _wait(device)
                times[name].append(_Time(time.process_time() - cpu, time.perf_counter() - wall))
    finally:
        if was_enabled:
            gc.enable()
    return times


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
