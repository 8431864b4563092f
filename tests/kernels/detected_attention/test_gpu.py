"""Attention over kept keys in Triton: in the interpreter against the float64 reference, and compiled for four GPUs."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gnomon.kernels import _triton
from gnomon.kernels.detected_attention import reference

pytest.importorskip("triton")
from gnomon.kernels import _triton_kept
from gnomon.kernels.detected_attention import gpu

MODULE = "gnomon.kernels.detected_attention.gpu"
INSTRUCTION = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "v_mfma_f32"}
SHARED_BYTES = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass
class Case:
    queries: int = 9
    keys: int = 13
    kept: int = 5
    heads: int = 1
    groups: int = 1
    batch: int = 1
    size: int = 16
    block: tuple[int, int] = (1, 1)
    causal: bool = False
    masked: bool = False
    scale: float = 0.3
    dtype: torch.dtype = torch.float32


TOKENS = {
    "one head": Case(),
    "grouped heads, two batches": Case(queries=4, batch=2, heads=4, groups=2, size=20),
    "more kept keys than are gathered at once": Case(queries=3, keys=90, kept=80),
    "float16": Case(queries=4, dtype=torch.float16, scale=-0.4),
    "bfloat16": Case(queries=4, dtype=torch.bfloat16),
}
BLOCKS = {
    "blocks that cut the last ones": Case(37, 45, 2, block=(16, 16)),
    "small and odd blocks": Case(11, 20, 3, block=(5, 7), size=20),
    "blocks larger than a tile of the kernel": Case(150, 140, 1, block=(150, 70)),
    "causal, fewer queries than keys": Case(20, 40, 3, block=(16, 16), causal=True),
    "causal, more queries than keys, so some see nothing": Case(40, 20, 2, block=(16, 16), causal=True),
    "masked keys, two batches, grouped heads": Case(20, 40, 2, heads=2, groups=1, batch=2, block=(16, 16), masked=True),
    "float16": Case(20, 40, 2, block=(16, 16), dtype=torch.float16),
    "bfloat16": Case(20, 40, 2, block=(16, 16), dtype=torch.bfloat16),
}


def chosen(case: Case) -> tuple[Tensor, Tensor]:
    """Random kept blocks, ascending; rows with all, some and no entry."""
    tiles, blocks = -(-case.queries // case.block[0]), -(-case.keys // case.block[1])
    shape = (case.batch, case.heads, tiles)
    index = torch.rand(*shape, blocks).argsort(-1)[..., : case.kept].sort(-1).values
    count = torch.randint(0, case.kept + 1, shape, dtype=torch.int32)
    count[..., 0] = case.kept
    return index.masked_fill(torch.arange(case.kept) >= count[..., None], -1).int().contiguous(), count


def compare(interpreter, case: Case, kind: str, definition, rest) -> None:
    q = torch.randn(case.batch, case.heads, case.queries, case.size).to(case.dtype)
    k, v = (torch.randn(case.batch, case.groups, case.keys, case.size).to(case.dtype) for _ in range(2))
    grad_out, grad_lse = torch.randn(q.shape).to(case.dtype), torch.randn(q.shape[:3])
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    want, want_lse = definition(*leaves, *rest)
    loss = (want * grad_out).sum() + (want_lse * grad_lse).masked_fill(want_lse.isinf(), 0).sum()
    gradients = torch.autograd.grad(loss, leaves)
    out, lse = interpreter.call(MODULE, f"{kind}_forward", q, k, v, *rest)
    found = interpreter.call(MODULE, f"{kind}_backward", grad_out, grad_lse, q, k, v, out, lse, *rest)
    tolerance = TOLERANCE[case.dtype]
    torch.testing.assert_close(out.double(), want, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(lse.double(), want_lse, atol=tolerance, rtol=tolerance)
    for gradient, wanted in zip(found, gradients, strict=True):
        assert gradient.dtype == case.dtype
        atol = tolerance * float(1 + wanted.abs().max())
        torch.testing.assert_close(gradient.double(), wanted, atol=atol, rtol=tolerance)


@pytest.mark.parametrize("name", TOKENS)
def test_single_keys_are_attended_to_as_the_float64_reference_does(interpreter, name):
    case = TOKENS[name]
    compare(interpreter, case, "token", reference.sparse_attention, (*chosen(case), case.scale))


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_keys_are_attended_to_as_the_float64_reference_does(interpreter, name):
    case = BLOCKS[name]
    mask = torch.rand(case.batch, case.keys) < 0.7 if case.masked else None
    rest = (*chosen(case), case.block, case.causal, mask, case.scale)
    compare(interpreter, case, "block", reference.block_sparse_attention, rest)


def test_lists_are_turned_around_without_loss():
    case = Case(12, 17, 6, batch=2, heads=4, groups=2)
    index, count = chosen(case)
    owner, begin = _triton_kept.seen_by(index, count, case.groups, case.keys)
    kept = set()
    for number in range(case.batch * case.groups * case.keys):
        mine = owner[begin[number] : begin[number + 1]].tolist()
        assert mine == sorted(mine)
        batch, group, key = number // case.keys // case.groups, number // case.keys % case.groups, number % case.keys
        kept |= {(batch, group * 2 + one // case.queries, one % case.queries, key) for one in mine}
    wanted = reference.token_mask(index, count, case.keys).nonzero()
    assert kept == {tuple(row) for row in wanted.tolist()}
    assert int(begin[-1]) == int(count.sum())


@pytest.mark.parametrize("target", _triton.TARGETS)
def test_each_gpu_gets_its_matrix_instructions_no_atomics_and_fits_its_shared_memory(target):
    def meta(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    q, lse = meta(2, 8, 4096, 64), meta(2, 8, 4096, dtype=torch.float32)
    index, count = meta(2, 8, 64, 7, dtype=torch.int32), meta(2, 8, 64, dtype=torch.int32)
    turned = _triton_kept.SeenBy(meta(2 * 8 * 64 * 7, dtype=torch.int32), meta(2 * 8 * 64 + 1, dtype=torch.int64))
    kept = gpu.kept(q, q, index, count, (64, 64), True, meta(2, 4096, dtype=torch.bool))
    launches = [
        _triton_kept.forward_launch(q, q, q, q, lse, kept, 0.1, target),
        *_triton_kept.backward_launches(q, q, q, q, lse, lse, q, q, q, kept, turned, 0.1, target),
    ]
    for launch in launches:
        compiled = launch.compile(target)
        code = compiled.asm["amdgcn" if target.startswith("gfx") else "ptx"]
        assert INSTRUCTION[target] in code
        assert not re.search(r"\batom\b|\bred\.|_atomic_", code)
        assert compiled.metadata.shared <= SHARED_BYTES[target]


def test_gathering_kernels_compile():
    def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    q, lse = meta(2, 8, 256, 64), meta(2, 8, 256, dtype=torch.float32)
    index, count = meta(2, 8, 256, 26, dtype=torch.int32), meta(2, 8, 256, dtype=torch.int32)
    turned = _triton_kept.SeenBy(meta(2 * 8 * 256 * 26, dtype=torch.int32), meta(2 * 8 * 256 + 1, dtype=torch.int64))
    for launch in (
        gpu.token_forward_launch(q, q, q, index, count, q, lse, 0.1),
        *gpu.token_backward_launches(q, q, q, q, lse, lse, q, q, q, index, count, turned, 0.1),
    ):
        code = launch.compile("sm_90").asm["ptx"]
        assert not re.search(r"\batom\b|\bred\.", code)


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of a machine without a GPU")
def test_tensors_elsewhere_are_refused_with_the_reason():
    case = Case()
    q, k = torch.randn(1, 1, case.queries, 16), torch.randn(1, 1, case.keys, 16)
    with pytest.raises(ValueError, match=r"q: Triton kernels run on a GPU; the tensors are on cpu"):
        gpu.token_forward(q, k, k, *chosen(case), 1.0)
