"""Neighborhood attention in Triton on a GPU: the seven problems that NATTEN publishes, forward and backward.

Half precision, one sequence, heads-last tensors, stride 1 and the strides that make tiles dense. Beside our kernels:
cuDNN's dense attention (else FlashAttention), compiled FlexAttention with the same window, and a matrix product of
8192 x 8192, whose rate stands for the peak. Calls are timed by events on the device, candidates in random order in
each round, `--calls` calls between two events; FLOP are those the problem asks for (4 D for each pair forward, 10 D
backward), so a dense kernel's useful rate is low by design. Sampled rows of outputs and gradients are checked against
float32 before anything is timed. Bar: stride 1 forward at least as fast as NATTEN's published Hopper kernel.

`python benchmarks/kernels/neighborhood_attention_gpu.py [--rounds N] [--calls N] [--out FILE]`; prints a table, stores
it as JSON. Exit code 1: a check or a bar fails; 3: no GPU that the kernels run on.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from gnomon.core.records import to_json
from gnomon.devices.host import host
from gnomon.kernels import _triton
from gnomon.kernels.neighborhood_attention.backends import flex
from gnomon.kernels.neighborhood_attention.problem import Problem
from gnomon.kernels.neighborhood_attention.published import CASES, SOURCE, Case

RESULTS = Path(__file__).parents[1] / "results" / "neighborhood_attention_gpu.json"
OURS, DENSE, FLEX, PEAK = "gnomon", "dense", "flex", "matmul"
_SAMPLES = 16
_TOLERANCE = 2e-2  # of the largest value: half precision rounds weights and sums of thousands of them


class Tensors(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    grad_out: Tensor


def tensors(case: Case) -> Tensors:
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (1, *case.problem.space, case.heads, case.head_dim)
    return Tensors(*(torch.randn(shape, generator=generator, device="cuda", dtype=torch.float16) for _ in range(4)))


def candidates(case: Case, x: Tensors) -> dict[str, dict[str, Callable[[], Any]]]:
    """Forward and backward -> name -> a call that queues the work. What cannot run here is left out by `usable`."""
    from gnomon.kernels.neighborhood_attention import gpu

    scale = case.head_dim**-0.5
    out, lse = gpu.forward(x.q, x.k, x.v, case.problem, scale)
    heads_first = [one.flatten(1, -3).transpose(1, 2).contiguous() for one in x]
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
            return scaled_dot_product_attention(q, k, v)

    def windowed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flex.backend.run(q, k, v, case.problem, scale, None, False)[0]

    return {
        "forward": {
            OURS: lambda: gpu.forward(x.q, x.k, x.v, case.problem, scale),
            DENSE: lambda: dense(*heads_first[:3]),
            FLEX: lambda: windowed(x.q, x.k, x.v),
            PEAK: lambda: a @ b,
        },
        "backward": {
            OURS: lambda: gpu.backward(x.grad_out, None, x.q, x.k, x.v, out, lse, case.problem, scale),
            DENSE: _gradient(dense, heads_first[:3], heads_first[3]),
            FLEX: _gradient(windowed, x[:3], x.grad_out),
            PEAK: lambda: a @ b,
        },
    }


def _gradient(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor) -> Callable[[], Any]:
    """A call of the backward alone; the forward runs once, at the first call."""
    made: list[tuple[Tensor, list[Tensor]]] = []

    def call() -> Any:
        if not made:
            leaves = [one.detach().requires_grad_() for one in inputs]
            made.append((function(*leaves), leaves))
        return torch.autograd.grad(*made[0], grad, retain_graph=True)

    return call


def usable(calls: dict[str, Callable[[], Any]]) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """The candidates that run, called twice so that they are compiled and warm; and the reasons of the others."""
    found, reasons = {}, {}
    for name, call in calls.items():
        try:
            call()
            call()
            torch.cuda.synchronize()
            found[name] = call
        except RuntimeError as error:  # out of memory, no kernel for this GPU, a compiler that fails
            if name in (OURS, PEAK):
                raise
            reasons[name] = str(error).splitlines()[0]
            torch.cuda.empty_cache()
    return found, reasons


def seconds(calls: dict[str, Callable[[], Any]], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Seconds per call in each round."""
    rng = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        order = list(calls)
        rng.shuffle(order)
        for name in order:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(repeats):
                calls[name]()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end) * 1e-3 / repeats)
    return times


def flop(case: Case, direction: str) -> int:
    products = 2 if direction == "forward" else 5
    return 2 * products * case.head_dim * case.heads * case.problem.pairs()


def errors(case: Case, x: Tensors) -> dict[str, float]:
    """Largest error over the largest value, of out, dq, dk and dv at sampled tokens of one head, against float32."""
    from gnomon.kernels.neighborhood_attention import gpu

    scale = case.head_dim**-0.5
    out, lse = gpu.forward(x.q, x.k, x.v, case.problem, scale)
    dq, dk, dv, _ = gpu.backward(x.grad_out, None, x.q, x.k, x.v, out, lse, case.problem, scale)
    head = case.heads - 1
    q, k, v, grad, o, *found = (
        one.flatten(1, -3)[0, :, head].float() for one in (x.q, x.k, x.v, x.grad_out, out, dq, dk, dv)
    )
    lse_N = lse.flatten(1, -2)[0, :, head]
    sampled = torch.linspace(0, case.problem.tokens - 1, _SAMPLES).long()
    wanted: dict[str, list[Tensor]] = {"out": [], "dq": [], "dk": [], "dv": []}
    for token, keys, queries in _seen(case.problem, sampled, x.q.device):
        weight = (q[token] @ k[keys].T * scale).softmax(-1)
        wanted["out"].append(weight @ v[keys])
        grad_weight = grad[token] @ v[keys].T
        wanted["dq"].append(scale * (weight * (grad_weight - weight @ grad_weight)) @ k[keys])
        weight = (q[queries] @ k[token] * scale - lse_N[queries]).exp()  # lse: checked by dq, of other tokens
        delta = (grad[queries] * o[queries]).sum(-1)
        wanted["dk"].append(scale * (weight * (grad[queries] @ v[token] - delta)) @ q[queries])
        wanted["dv"].append(weight @ grad[queries])
    result = {}
    for (name, rows), one in zip(wanted.items(), (o, *found), strict=True):
        exact = torch.stack(rows)
        result[name] = float((one[sampled.to(one.device)] - exact).abs().max() / exact.abs().max())
    return result


def _seen(problem: Problem, sampled: Tensor, device: torch.device) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(token, the keys that it sees as a query, the queries that see it as a key): numbers of tokens."""
    for token in sampled.tolist():
        place = [int(i) for i in torch.unravel_index(torch.tensor(token), problem.space)]
        keys, queries = [], []
        for axis, here in zip(problem.axes, place, strict=True):
            start, end = (torch.from_numpy(bound) for bound in axis.windows())
            along = torch.arange(axis.length)
            keys.append((along >= start[here]) & (along < end[here]))
            queries.append((start <= here) & (here < end))
        yield (token, *(reduce(_outer, masks).nonzero()[:, 0].to(device) for masks in (keys, queries)))


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] & b).flatten()


def measure(case: Case, rounds: int, repeats: int) -> dict[str, Any]:
    """Errors, and for each direction and candidate: seconds, useful FLOP per second, and time over ours."""
    x = tensors(case)
    wrong = errors(case, x)
    row: dict[str, Any] = {
        "problem": _written(case.problem),
        "heads": case.heads,
        "head_dim": case.head_dim,
        "published_flop_s": case.flop_s,
        "errors": wrong,
        "is_right": all(error <= _TOLERANCE for error in wrong.values()),
    }
    for direction, calls in candidates(case, x).items():
        runs, reasons = usable(calls)
        times = seconds(runs, rounds, repeats)
        work, ours = flop(case, direction), times[OURS]
        peak = 2 * 8192**3 / statistics.median(times.pop(PEAK))
        row[direction] = {"not_run": reasons, "matmul_flop_s": peak} | {
            name: {
                "least_s": min(one),
                "median_s": statistics.median(one),
                "flop_s": work / statistics.median(one),
                "share_of_matmul": work / statistics.median(one) / peak,
                "over_ours": _interval([theirs / mine for theirs, mine in zip(one, ours, strict=True)]),
            }
            for name, one in times.items()
        }
    return row


def _written(problem: Problem) -> dict[str, list[int]]:
    return {name: list(getattr(problem, name)) for name in ("space", "kernel_size", "stride")}


def _interval(ratios: list[float]) -> dict[str, float]:
    """Median, and the range that holds 95 of 100 rounds."""
    ordered = sorted(ratios)
    cut = int(len(ordered) * 0.025)
    return {"median": statistics.median(ordered), "low": ordered[cut], "high": ordered[-1 - cut]}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=5, help="calls between two events")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    reason = _triton.why_not(torch.device("cuda"))
    if reason is not None:
        print(f"cannot run here: {reason}", file=sys.stderr)
        return 3
    name = torch.cuda.get_device_name()
    is_hopper = torch.cuda.get_device_capability() == (9, 0)
    rows = [measure(case, options.rounds, options.calls) for case in CASES]
    print(f"{name}; torch {torch.__version__}; published: {SOURCE}")
    bars = {}
    for case, row in zip(CASES, rows, strict=True):
        problem = row["problem"]
        print(f"{problem['space']} window {problem['kernel_size']} stride {problem['stride']}, errors {row['errors']}")
        for direction in ("forward", "backward"):
            for candidate, one in row[direction].items():
                if candidate in (OURS, DENSE, FLEX):
                    over = one["over_ours"]
                    print(
                        f"  {direction:8} {candidate:7} {one['median_s'] * 1e3:9.2f} ms {one['flop_s'] * 1e-12:6.0f} "
                        f"TFLOP/s {one['share_of_matmul']:5.0%} of matmul; {over['median']:.2f} x ours "
                        f"[{over['low']:.2f}, {over['high']:.2f}]"
                    )
            for candidate, why in row[direction]["not_run"].items():
                print(f"  {direction:8} {candidate:7} did not run: {why}")
        if is_hopper and set(problem["stride"]) == {1}:
            bars[str(problem["space"])] = row["forward"][OURS]["flop_s"] >= case.flop_s
            print(
                f"  at least {case.flop_s * 1e-12:.0f} TFLOP/s: {'holds' if bars[str(problem['space'])] else 'MISSED'}"
            )
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "rounds": options.rounds,
        "calls": options.calls,
        "problems": rows,
        "bars": bars,
        "machine": to_json(host()),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(bars.values()) and all(row["is_right"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
