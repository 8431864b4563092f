"""Top-k attention by blocks in Triton: in the interpreter against the float64 reference, and compiled for four GPUs."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gnomon.kernels import _triton
from gnomon.kernels.quantized_topk_attention import reference

pytest.importorskip("triton")
from gnomon.kernels.quantized_topk_attention import gpu

MODULE = "gnomon.kernels.quantized_topk_attention.gpu"
INTEGER_PRODUCT = {
    "sm_80": "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32",
    "sm_100": "(tcgen05.mma.cta_group::1.kind::i8|mma.sync.*.s32.s8.s8.s32)",  # the former from Triton 3.9 on
    "sm_90": "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8",
    "gfx942": "v_mfma_i32",
}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass
class Case:
    queries: int = 40
    keys: int = 75
    topk: int = 30
    block: tuple[int, int] = (16, 16)
    heads: int = 1
    groups: int = 1
    batch: int = 1
    causal: bool = False
    masked: bool = False
    bits: int = 4
    dtype: torch.dtype = torch.float32


CASES = {
    "blocks that cut the last ones": Case(),
    "causal": Case(causal=True, keys=40),
    "masked keys, two batches, grouped heads": Case(queries=20, heads=2, batch=2, masked=True),
    "blocks that are no powers of two, 8 bits": Case(queries=50, block=(17, 24), bits=8),
    "blocks larger than one product": Case(queries=70, keys=140, topk=70, block=(70, 70)),
    "signs only": Case(queries=20, bits=1),
    "more keys asked for than there are": Case(queries=20, keys=20, topk=100),
    "float16": Case(queries=20, dtype=torch.float16),
    "bfloat16": Case(queries=20, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("name", CASES)
def test_choice_outputs_and_gradients_are_those_of_the_reference(interpreter, name):
    case = CASES[name]
    q = torch.randn(case.batch, case.heads, case.queries, 16).to(case.dtype)
    k = torch.randn(case.batch, case.groups, case.keys, 16).to(case.dtype)
    v = torch.randn(case.batch, case.groups, case.keys, 24).to(case.dtype)
    mask = None
    if case.masked:
        mask = torch.rand(case.batch, 1, 1, case.keys) < 0.6
        mask[0] = False  # a sequence that sees nothing
    problem = (case.topk, case.bits, case.block, case.causal, 0.3)
    want = reference.quantized_topk_attention(q, k, v, mask, None, *problem)
    out, lse, kept = interpreter.call(MODULE, "forward", q, k, v, mask, None, *problem)
    assert kept.equal(want.kept)
    tolerance = TOLERANCE[case.dtype]
    torch.testing.assert_close(out, want.out, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(lse, want.lse, atol=tolerance, rtol=tolerance)

    grad = torch.randn(out.shape).to(case.dtype)
    wide = [x.double() for x in (grad, q, k, v)]
    wanted = reference.backward(*wide, mask, None, kept, case.block, case.causal, 0.3)
    found = interpreter.call(
        MODULE, "backward", grad, q, k, v, mask, None, out, lse, kept, case.topk, case.block, case.causal, 0.3
    )
    for gradient, one in zip(found, wanted, strict=True):
        assert gradient.dtype == case.dtype
        atol = tolerance * float(1 + one.abs().max())
        torch.testing.assert_close(gradient.double(), one, atol=atol, rtol=tolerance)


def test_of_equal_scores_the_lower_block_is_kept(interpreter):
    q, k = torch.ones(1, 1, 16, 16), torch.ones(1, 1, 64, 16)
    *_, kept = interpreter.call(MODULE, "forward", q, k, k, None, None, 32, 4, (16, 16), False, 1.0)
    assert kept.tolist() == [[[[0, 1]]]]


def test_what_has_no_kernel_is_refused_with_the_reason(interpreter):
    q = torch.randn(1, 1, 32, 16)
    ask = (q, q, q, None)
    assert interpreter.call(MODULE, "why_not", *ask, None, 16, 4, (16, 16)) is None
    assert "at least 16" in interpreter.call(MODULE, "why_not", *ask, None, 16, 4, (1, 1))
    assert "up to 8 bits; got 16" in interpreter.call(MODULE, "why_not", *ask, None, 16, 16, (16, 16))
    assert "padded batches" in interpreter.call(MODULE, "why_not", *ask, torch.tensor([0, 32]), 16, 4, (16, 16))
    with pytest.raises(ValueError, match=r"q: .* got 16"):
        interpreter.call(MODULE, "forward", *ask, None, 16, 16, (16, 16), False, 1.0)


@pytest.mark.parametrize("target", _triton.TARGETS)
def test_each_gpu_multiplies_integers_in_its_matrix_units(target):
    def meta(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    q, pooled = meta(2, 8, 4096, 64, dtype=torch.int8), meta(2, 8, 64, 64, dtype=torch.int32)
    compiled = gpu.pool_launch(q, q, pooled, None, (64, 64), True).compile(target)
    code = compiled.asm["amdgcn" if target.startswith("gfx") else "ptx"]
    assert re.search(INTEGER_PRODUCT[target], code)
