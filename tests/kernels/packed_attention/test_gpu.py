"""Packed attention in Triton: in the interpreter against the float64 reference, and compiled for four GPUs."""

import re
from dataclasses import dataclass

import pytest
import torch

from gnomon.kernels import _triton
from gnomon.kernels._triton_blocks import Blocks
from gnomon.kernels.packed_attention import reference

pytest.importorskip("triton")
from gnomon.kernels.packed_attention import gpu

MODULE = "gnomon.kernels.packed_attention.gpu"
INSTRUCTION = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "v_mfma_f32"}
SHARED_BYTES = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}


@dataclass
class Case:
    lengths: tuple[int, ...]
    causal: bool = False
    heads: int = 1
    groups: int = 1
    size: int = 16
    value_size: int = 16
    scale: float = 0.3
    dtype: torch.dtype = torch.float32
    tolerance: float = 1e-5


CASES = {
    "uneven, one of one token, one empty": Case((19, 1, 0, 33)),
    "causal": Case((19, 1, 33), causal=True),
    "grouped heads, causal": Case((20, 7), heads=4, groups=2, causal=True),
    "odd head sizes": Case((18,), size=20, value_size=33),
    "negative scale": Case((18, 3), scale=-0.7),
    "float16": Case((18, 3), dtype=torch.float16, tolerance=1e-2),
    "bfloat16": Case((18, 3), dtype=torch.bfloat16, tolerance=5e-2),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_the_float64_reference(interpreter, name):
    case = CASES[name]
    bounds = torch.tensor((0, *case.lengths)).cumsum(0)
    total = int(bounds[-1])
    q, k = (torch.randn(total, h, case.size).to(case.dtype) for h in (case.heads, case.groups))
    v = torch.randn(total, case.groups, case.value_size).to(case.dtype)
    grad_out = torch.randn(total, case.heads, case.value_size).to(case.dtype)
    grad_lse = torch.randn(total, case.heads)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    want, want_lse = reference.packed_attention(*leaves, bounds, case.causal, case.scale)
    gradients = torch.autograd.grad((want * grad_out).sum() + (want_lse * grad_lse).sum(), leaves)

    problem = (max(case.lengths), case.causal, case.scale, Blocks(16, 16, 4, 1))
    out, lse = interpreter.call(MODULE, "forward", q, k, v, bounds, *problem)
    found = interpreter.call(MODULE, "backward", grad_out, grad_lse, q, k, v, bounds, out, lse, *problem)
    tolerance = {"atol": case.tolerance, "rtol": case.tolerance}
    torch.testing.assert_close(out.double(), want, **tolerance)
    torch.testing.assert_close(lse.double(), want_lse, **tolerance)
    for gradient, wanted in zip(found, gradients, strict=True):
        assert gradient.dtype == case.dtype
        atol = case.tolerance * float(1 + wanted.abs().max())
        torch.testing.assert_close(gradient.double(), wanted, atol=atol, rtol=case.tolerance)


def test_a_sequence_does_not_feel_its_neighbors_even_if_they_are_not_finite(interpreter):
    q = torch.randn(40, 1, 16)
    q[20:] = torch.nan
    bounds = torch.tensor((0, 20, 40))
    out, lse = interpreter.call(MODULE, "forward", q, q, q, bounds, 20, False, 0.3, Blocks(16, 16, 4, 1))
    assert out[:20].isfinite().all()
    grad = torch.ones_like(out)
    found = interpreter.call(
        MODULE, "backward", grad, None, q, q, q, bounds, out, lse, 20, False, 0.3, Blocks(16, 16, 4, 1)
    )
    assert all(x[:20].isfinite().all() for x in found)


def test_no_tokens_give_no_outputs(interpreter):
    q, bounds = torch.randn(0, 2, 16), torch.tensor((0, 0))
    out, lse = interpreter.call(MODULE, "forward", q, q, q, bounds, 0, False, 1.0)
    found = interpreter.call(MODULE, "backward", out, None, q, q, q, bounds, out, lse, 0, False, 1.0)
    assert [x.shape for x in (out, *found)] == [q.shape] * 4


@pytest.mark.parametrize("target", _triton.TARGETS)
def test_each_gpu_gets_its_matrix_instructions_no_atomics_and_fits_its_shared_memory(target):
    q = torch.empty(4096, 12, 64, dtype=torch.float16, device="meta")
    lse, bounds = torch.empty(4096, 12, device="meta"), torch.empty(33, dtype=torch.int64, device="meta")
    launches = [
        gpu.forward_launch(q, q, q, bounds, q, lse, 256, False, 0.1, target),
        *gpu.backward_launches(q, q, q, q, bounds, lse, lse, q, q, q, 256, False, 0.1, target),
    ]
    for launch in launches:
        compiled = launch.compile(target)
        code = compiled.asm["amdgcn" if target.startswith("gfx") else "ptx"]
        assert INSTRUCTION[target] in code
        assert not re.search(r"\batom\b|\bred\.|_atomic_", code)
        assert compiled.metadata.shared <= SHARED_BYTES[target]
