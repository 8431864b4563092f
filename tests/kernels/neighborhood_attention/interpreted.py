"""What runs in the interpreter's process: the probe of the window rules, and a call on tensors with far offsets."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnomon.kernels._triton_blocks import Blocks
from gnomon.kernels.neighborhood_attention import gpu
from gnomon.kernels.neighborhood_attention.gpu_windows import viewers, window
from gnomon.kernels.neighborhood_attention.problem import Axis, Problem


@triton.jit
def probe(found, n, w, reach, S: tl.constexpr, CAUSAL: tl.constexpr, ROWS: tl.constexpr):
    """found [4, ROWS]: each query's window, and who sees any of the keys i..i + reach."""
    i = tl.arange(0, ROWS)
    start, end = window(i, n, w, S, CAUSAL)
    low, high = viewers(i, tl.minimum(i + reach, n - 1), n, w, S, CAUSAL)
    tl.store(found + i, start, mask=i < n)
    tl.store(found + ROWS + i, end, mask=i < n)
    tl.store(found + 2 * ROWS + i, low, mask=i < n)
    tl.store(found + 3 * ROWS + i, high, mask=i < n)


def probed(axis: Axis, reach: int) -> Tensor:
    rows = triton.next_power_of_2(axis.length)
    found = torch.zeros(4, rows, dtype=torch.int32)
    probe[(1,)](found, axis.length, axis.window, reach, axis.stride, axis.is_causal, rows)
    return found[:, : axis.length]


def far_apart(gap: int) -> tuple[Tensor, Tensor]:
    """Outputs for 17 tokens next to each other, and for the same `gap` elements apart, most of that memory unused."""
    q = torch.randn(1, 17, 1, 16, dtype=torch.float16)
    far = torch.empty(16 * gap + 16, dtype=torch.float16).as_strided((1, 17, 1, 16), (17 * gap, gap, 16, 1))
    far.copy_(q)
    problem = Problem.of((17,), 5)
    tuning = gpu.Tuning(block=Blocks(16, 16, 4, 1))
    return gpu.forward(q, q, q, problem, 0.25, None, tuning)[0], gpu.forward(
        far, far, far, problem, 0.25, None, tuning
    )[0]
