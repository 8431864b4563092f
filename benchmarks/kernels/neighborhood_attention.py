"""Neighborhood attention on one core beside what a user has without it, and the bars of the kernel.

(a) Forward, and forward and backward, in float32 and bfloat16, against the best of SDPA under the window's mask, SDPA
    over all keys and compiled FlexAttention (forward only: it refuses to train on a CPU): at least 12 times as fast at
    32 x 32 w 7, 30 times at 56 x 56 w 7, 8 times at 8 x 16 x 16 w (3, 5, 5); at 4096 w 255 at least 20 times as fast
    as SDPA, and 4 times as fast as FlexAttention.
(b) Useful FLOP/s of the float32 forward pass (4 D for each pair that is seen): 50 GFLOP/s at w 7 and 120 at w 255 on an
    AVX-512 core, or 19 % and 46 % of what a loop of multiply-adds reaches here.
(c) The AVX2 variant takes at most 2.5 times as long as the AVX-512 one.
(d) Extra memory grows with the tokens: bytes per token at 16 times as many tokens are at most 1.5 times as many.
(e) Two threads are at least 1.7 times as fast as one, where nothing else runs; the load is stated.

One thread, CPU time of the process, variants interleaved in random order, garbage collector off; least and median over
rounds. The script starts itself again with an allocator that keeps freed memory, for all variants: page faults of fresh
memory would be timed too. FlexAttention is compiled once per problem in float32, and in bfloat16 for the 1-D problem
only: a compile takes 20 to 70 s, and on 2-D windows it takes longer than SDPA. Outputs and gradients of one head are
held against the dense reference in float64.

`python benchmarks/kernels/neighborhood_attention.py [--rounds N] [--without-flex] [--out FILE]`; exit code 1: a bar
fails.
"""

import argparse
import ctypes
import datetime
import gc
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnomon.core.records import to_json
from gnomon.core.stats import ratio_test
from gnomon.devices.host import host
from gnomon.kernels import _native
from gnomon.kernels.neighborhood_attention import cpu, reference
from gnomon.kernels.neighborhood_attention.backends.flex import backend as flex
from gnomon.kernels.neighborhood_attention.backends.sdpa import backend as sdpa
from gnomon.kernels.neighborhood_attention.operator import attend
from gnomon.kernels.neighborhood_attention.problem import Problem
from gnomon.measure.doctor import allocator_regime

RESULTS = Path(__file__).parents[1] / "results" / "neighborhood_attention.json"
HEADS, SIZE = 4, 32
# name -> batch, problem, times SDPA, times FlexAttention where it has its own bar
PROBLEMS: dict[str, tuple[int, Problem, float, float | None]] = {
    "32x32 w7": (4, Problem.of((32, 32), 7), 12.0, None),
    "56x56 w7": (4, Problem.of((56, 56), 7), 30.0, None),
    "4096 w255": (1, Problem.of((4096,), 255), 20.0, 4.0),
    "8x16x16 w3,5,5": (4, Problem.of((8, 16, 16), (3, 5, 5)), 8.0, None),
}
RATES = {"32x32 w7": (50e9, 0.19), "56x56 w7": (50e9, 0.19), "4096 w255": (120e9, 0.46)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# largest error over the largest entry: roundings of the dtype, sums over some hundred keys
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
SCALE = SIZE**-0.5
_KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
_SECONDS = 20.0  # of timing for each table, at least three rounds

Work = Callable[[], Any]


def inputs(batch: int, problem: Problem, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v and the gradient of the output, [B, *space, H, D]."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, *problem.space, HEADS, SIZE, generator=generator).to(dtype) for _ in range(4)]


def training(forward: Callable[[Tensor, Tensor, Tensor], Tensor], given: Sequence[Tensor]) -> Work:
    """One forward and backward pass."""
    *leaves, grad = given
    leaves = [x.clone().requires_grad_() for x in leaves]
    return lambda: torch.autograd.grad(forward(*leaves), leaves, grad)


def ours(problem: Problem, isa: str | None = None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if isa is None:
        return lambda q, k, v: attend(q, k, v, problem, SCALE)[0]
    return lambda q, k, v: cpu.forward(q, k, v, problem, SCALE, isa=isa)[0]


def masked(problem: Problem) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda q, k, v: sdpa.run(q, k, v, problem, SCALE, None, False)[0]


def dense(problem: Problem) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    everything = Problem.of(problem.space, problem.space)
    return lambda q, k, v: sdpa.run(q, k, v, everything, SCALE, None, False)[0]


def timed(variants: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each variant in each round."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    rng = random.Random(0)
    for work in variants.values():
        work()  # allocates
    gc.collect()
    gc.disable()
    began = time.monotonic()
    for turn in range(rounds):
        if turn >= 3 and time.monotonic() - began > _SECONDS:
            break
        order = list(variants)
        rng.shuffle(order)
        for name in order:
            start = time.process_time()
            variants[name]()
            times[name].append(time.process_time() - start)
    gc.enable()
    return times


def summary(times: dict[str, list[float]], of: str) -> dict[str, dict[str, Any]]:
    """Least and median of each variant, and how many times faster `of` is."""
    rows = {}
    for name, one in times.items():
        faster = ratio_test(one, times[of]).speedup
        rows[name] = {
            "least_s": min(one),
            "median_s": statistics.median(one),
            "rounds": len(one),
            "times_slower": faster.value,
            "interval": [faster.low, faster.high],
            "times_slower_by_least": min(one) / min(times[of]),
        }
    return rows


def errors(batch: int, problem: Problem, dtype: torch.dtype) -> dict[str, float]:
    """Largest error of the output and of each gradient of one head, over the largest entry of the reference."""
    *leaves, grad = inputs(batch, problem, dtype)
    leaves = [x.requires_grad_() for x in leaves]
    out, _ = attend(*leaves, problem, SCALE)
    got = (out, *torch.autograd.grad(out, leaves, grad))
    one = [x.detach()[:1, ..., :1, :].double() for x in (*leaves, grad)]
    with torch.no_grad():
        wanted_out, lse = reference.neighborhood_attention(*one[:3], problem, SCALE)
        gradients = reference.backward(one[3], None, *one[:3], wanted_out, lse, problem, SCALE)
    return {
        name: float((x.detach()[:1, ..., :1, :].double() - y).abs().max() / y.abs().max())
        for name, x, y in zip(("out", "dq", "dk", "dv"), got, (wanted_out, *gradients[:3]), strict=True)
    }


class Peak:
    """A loop of fused multiply-adds on registers."""

    def __init__(self, isa: str) -> None:
        source = Path(__file__).with_name("fma_peak.cpp")
        pointers = [ctypes.c_int64, ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_float)]
        self._library = _native.Kernels("the peak", source, {"multiply_add": pointers}).library(isa)
        self.flop = 0.0

    def __call__(self) -> None:
        flop, total = ctypes.c_double(), ctypes.c_float()
        self._library.multiply_add(400_000, ctypes.byref(flop), ctypes.byref(total))
        self.flop = flop.value


def compare(rounds: int, with_flex: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each problem, dtype and direction."""
    rows = []
    isas = _native.isas()
    for name, (batch, problem, _, flex_bar) in PROBLEMS.items():
        for dtype_name, dtype in DTYPES.items():
            say(f"{name} {dtype_name}")
            given = inputs(batch, problem, dtype)
            candidates = {"ours": ours(problem), "SDPA, mask": masked(problem), "SDPA, dense": dense(problem)}
            forward: dict[str, Work] = {key: partial(f, *given[:3]) for key, f in candidates.items()}
            both: dict[str, Work] = {key: training(f, given) for key, f in candidates.items()}
            for isa in isas[1:2]:
                forward[f"ours, {isa}"] = partial(ours(problem, isa), *given[:3])
            compile_s = None
            if with_flex and (dtype is torch.float32 or flex_bar):
                forward["FlexAttention"] = partial(flex.run, *given[:3], problem, SCALE, None, False)
                start = time.perf_counter()
                forward["FlexAttention"]()
                compile_s = time.perf_counter() - start
            peak = Peak(isas[0])
            forward["multiply-adds"] = peak
            found = {"problem": name, "dtype": dtype_name, "errors": errors(batch, problem, dtype)}
            rows.append(
                found
                | {
                    "direction": "forward",
                    "variants": summary(timed(forward, rounds), "ours"),
                    "useful_flop": 4 * problem.pairs() * SIZE * batch * HEADS,
                    "peak_flop": peak.flop,
                    "flex_compile_s": compile_s,
                }
            )
            rows.append(found | {"direction": "forward+backward", "variants": summary(timed(both, rounds), "ours")})
    return rows


def variants_backward(rounds: int) -> dict[str, Any]:
    """Forward and backward of each instruction set at 32 x 32: least CPU seconds."""
    batch, problem, *_ = PROBLEMS["32x32 w7"]
    q, k, v, grad = inputs(batch, problem, torch.float32)

    def both(isa: str) -> None:
        out, lse = cpu.forward(q, k, v, problem, SCALE, isa=isa)
        cpu.backward(grad, None, q, k, v, out, lse, problem, SCALE, isa=isa)

    times = timed({isa: (lambda isa=isa: both(isa)) for isa in _native.isas()}, rounds)
    return {isa: min(one) for isa, one in times.items()}


def memory() -> list[dict[str, Any]]:
    """What a float32 call allocates besides its tensors, from 64 x 64 to 512 x 512 and for long lines."""
    rows = []
    for space, w in (
        ((64, 64), 7),
        ((256, 256), 7),
        ((512, 512), 7),
        ((4096,), 255),
        ((65536,), 255),
        ((262144,), 255),
    ):
        problem, x = Problem.of(space, w), torch.empty(1, *space, HEADS, SIZE)
        rows.append(
            {
                "space": list(space),
                "window": w,
                "tensor_bytes": x.nbytes,
                "forward_bytes": cpu.extra_bytes(x, x, problem),
                "backward_bytes": cpu.extra_bytes(x, x, problem, is_backward=True),
            }
        )
    return rows


def resident(space: tuple[int, ...] = (256, 256), w: int = 7) -> dict[str, Any]:
    """Growth of the process' resident memory over one forward and backward pass, beside the tensors it returns."""
    problem = Problem.of(space, w)
    small = Problem.of((16, 16), w)
    training(ours(small), inputs(1, small, torch.float32))()  # loads everything
    run = training(ours(problem), inputs(1, problem, torch.float32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    tensor = problem.tokens * HEADS * SIZE * 4
    return {"space": list(space), "grown_bytes": grown, "tensor_bytes": tensor, "mask_bytes": problem.tokens**2}


def threads(rounds: int) -> dict[str, Any]:
    """Wall time of two threads beside one, 56 x 56 float32, and the load before."""
    batch, problem, *_ = PROBLEMS["56x56 w7"]
    given = inputs(batch, problem, torch.float32)
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"load_before": load, "cores": os.cpu_count()}
    works = {"forward": lambda: ours(problem)(*given[:3]), "forward+backward": training(ours(problem), given)}
    for name, work in works.items():
        least = {1: float("inf"), 2: float("inf")}
        for _ in range(rounds):
            for count in least:
                torch.set_num_threads(count)
                work()
                start = time.perf_counter()
                work()
                least[count] = min(least[count], time.perf_counter() - start)
        torch.set_num_threads(1)
        found[name] = least[1] / least[2]
    return found


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []

    def bar(name: str, value: float, wanted: float, most: bool = False) -> None:
        holds = value <= wanted if most else value >= wanted
        rows.append({"bar": name, "value": value, "wanted": f"{'<=' if most else '>='} {wanted:g}", "holds": holds})

    for row in found["rows"]:
        name, variants = f"{row['problem']} {row['dtype']} {row['direction']}", row["variants"]
        times_sdpa, times_flex = PROBLEMS[row["problem"]][2:]
        slower = {other: one["times_slower"] for other, one in variants.items()}
        others = [value for other, value in slower.items() if other.startswith("SDPA")]
        if times_flex is None and "FlexAttention" in slower:
            others.append(slower["FlexAttention"])
        bar(f"{name}: times faster than the best other", min(others), times_sdpa)
        if times_flex is not None and "FlexAttention" in slower:
            bar(f"{name}: times faster than FlexAttention", slower["FlexAttention"], times_flex)
        if "ours, avx2" in slower:
            bar(f"{name}: AVX2 over AVX-512", slower["ours, avx2"], 2.5, most=True)
        bar(f"{name}: largest error", max(row["errors"].values()), TOLERANCE[DTYPES[row["dtype"]]], most=True)
        if "useful_flop" in row and row["dtype"] == "float32" and row["problem"] in RATES:
            rate, share = RATES[row["problem"]]
            reached = row["useful_flop"] / variants["ours"]["least_s"]
            peak = row["peak_flop"] / variants["multiply-adds"]["least_s"]
            if reached >= rate:
                bar(f"{name}: useful GFLOP/s", reached / 1e9, rate / 1e9)
            else:
                bar(f"{name}: {reached / 1e9:.0f} useful of {peak / 1e9:.0f} GFLOP/s, share", reached / peak, share)
    isas = found["instruction_sets"]
    if "avx512" in isas:
        bar("32x32 w7 float32 forward+backward: AVX2 over AVX-512", isas["avx2"] / isas["avx512"], 2.5, most=True)
    per_token = [
        {key: row[key] / row["tensor_bytes"] for key in ("forward_bytes", "backward_bytes")} for row in found["memory"]
    ]
    for first, last in ((0, 2), (3, 5)):
        for key in per_token[0]:
            grown = per_token[last][key] / per_token[first][key]
            bar(f"{found['memory'][last]['space']}: {key} per token, growth", grown, 1.5, most=True)
    grown = found["resident"]
    bar("256x256 w7: resident growth in tensors of q", grown["grown_bytes"] / grown["tensor_bytes"], 12, most=True)
    if found["threads"]["load_before"] < 1.3:  # this process is the one that runs
        for direction in ("forward", "forward+backward"):
            bar(f"56x56 w7 {direction}: two threads", found["threads"][direction], 1.7)
    return rows


def show(found: dict[str, Any]) -> None:
    for row in found["rows"]:
        print(f"\n{row['problem']} {row['dtype']} {row['direction']}")
        for name, one in row["variants"].items():
            print(
                f"  {name:16} {one['least_s'] * 1e3:9.2f} ms least {one['median_s'] * 1e3:9.2f} median"
                f" {one['times_slower']:7.1f} x ours [{one['interval'][0]:.1f}, {one['interval'][1]:.1f}]"
            )
    print("\nextra memory, in sizes of q:")
    for row in found["memory"]:
        parts = (f"{key} {row[f'{key}_bytes'] / row['tensor_bytes']:.2f}" for key in ("forward", "backward"))
        print(f"  {row['space']} w{row['window']}: {', '.join(parts)}")
    print(f"two threads: {json.dumps(found['threads'])}")
    print()
    for row in found["bars"]:
        print(f"{'holds ' if row['holds'] else 'MISSED'} {row['bar']}: {row['value']:.3g} (wanted {row['wanted']})")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without-flex", action="store_true")
    parser.add_argument("--resident", action="store_true", help="print the growth of resident memory and stop")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if not options.resident and not _KEPT_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, __file__, *arguments], {**os.environ, **_KEPT_MEMORY})
    torch.set_num_threads(1)
    if options.resident:
        print(json.dumps(resident()))
        return 0
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    child = subprocess.run(
        [sys.executable, __file__, "--resident"], capture_output=True, text=True, check=True, timeout=120
    )
    found: dict[str, Any] = {
        "schema": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": to_json(host()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "compiler": _native.compiler(),
        "isa": _native.isas()[0],
        "allocator": allocator_regime(),
        "threads_of_torch": torch.get_num_threads(),
        "clock": "process CPU time",
        "rounds": options.rounds,
        "rows": compare(options.rounds, not options.without_flex, say),
        "instruction_sets": variants_backward(options.rounds),
        "memory": memory(),
        "resident": json.loads(child.stdout),
        "threads": threads(options.rounds),
    }
    found["bars"] = bars(found)
    show(found)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(row["holds"] for row in found["bars"]) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
