"""The Triton kernels: their results in the interpreter against the float64 reference, their code for four GPUs."""

import re
from dataclasses import dataclass, field

import pytest
import torch

from gnomon.kernels import _triton
from gnomon.kernels._triton_blocks import Blocks
from gnomon.kernels.neighborhood_attention import reference
from gnomon.kernels.neighborhood_attention.gpu_blocks import tiles
from gnomon.kernels.neighborhood_attention.problem import Axis, Problem

pytest.importorskip("triton")
from gnomon.kernels.neighborhood_attention import gpu

MODULE = "gnomon.kernels.neighborhood_attention.gpu"
# of the card: forward, gradients; half precision rounds scores' weights, so errors scale with the values
TOLERANCE = {torch.float32: (1e-5, 1e-5), torch.float16: (1e-2, 1e-2), torch.bfloat16: (5e-2, 5e-2)}
INSTRUCTION = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "v_mfma_f32"}
SHARED_BYTES = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}


@dataclass
class Case:
    space: tuple[int, ...]
    window: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    dilation: int | tuple[int, ...] = 1
    causal: bool | tuple[bool, ...] = False
    batch: int = 1
    heads: int = 1
    groups: int = 1
    size: int = 16
    scale: float = 0.3
    biased: bool = False
    dtype: torch.dtype = torch.float32
    tuning: gpu.Tuning = field(default_factory=lambda: gpu.Tuning(block=Blocks(16, 16, 4, 1)))

    @property
    def problem(self) -> Problem:
        return Problem.of(self.space, self.window, self.stride, self.dilation, self.causal)


CASES = {
    "1-D, a last tile that is cut": Case((37,), (7,)),
    "even window, stride, two batches": Case((20,), (8,), stride=3, batch=2),
    "dilation that divides nothing, causal, stride": Case((37,), (8,), stride=3, dilation=3, causal=True),
    "2-D, all different": Case((9, 11), (3, 4), stride=(1, 2), dilation=(2, 1), causal=(False, True)),
    "3-D, all different": Case((3, 5, 6), (3, 2, 3), stride=(1, 2, 3), dilation=(1, 1, 2), causal=(True, False, False)),
    "tiles without a mask": Case((48,), (33,), tuning=gpu.Tuning(block=Blocks(16, 16, 4, 1))),
    "window of one token": Case((5, 4), (1, 1)),
    "window of all tokens": Case((4, 6), (4, 6)),
    "grouped heads": Case((7, 6), (3, 3), heads=4, groups=2),
    "odd head size": Case((18,), (5,), size=20),
    "head size below the least block": Case((18,), (5,), size=8),
    "bias": Case((4, 5), (3, 2), heads=2, biased=True),
    "bias, dilation": Case((9,), (3,), dilation=2, biased=True),
    "scale of zero": Case((18,), (5,), scale=0.0),
    "negative scale": Case((18,), (5,), scale=-0.7),
    "float16": Case((6, 7), (3, 4), dtype=torch.float16),
    "bfloat16": Case((6, 7), (3, 4), dtype=torch.bfloat16),
    "boxes by descriptors, 2-D": Case((9, 11), (5, 4), heads=2, tuning=gpu.Tuning("sm_90", Blocks(32, 16, 4, 1), True)),
    "boxes by descriptors, 3-D": Case(
        (3, 5, 6), (3, 2, 3), heads=2, groups=1, tuning=gpu.Tuning("sm_90", Blocks(32, 32, 4, 1), True)
    ),
}


def inputs(case: Case) -> list[torch.Tensor]:
    shapes = [(case.batch, *case.space, heads, case.size) for heads in (case.heads, case.groups, case.groups)]
    q, k, v, grad_out = (torch.randn(shape).to(case.dtype) for shape in (*shapes, shapes[0]))
    return [q, k, v, grad_out, torch.randn(shapes[0][:-1])]


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_the_float64_reference(interpreter, name):
    case = CASES[name]
    q, k, v, grad_out, grad_lse = inputs(case)
    rpb = torch.randn(case.heads, *(2 * w - 1 for w in case.problem.kernel_size)) if case.biased else None
    leaves = [x.double().requires_grad_() for x in (q, k, v) + (() if rpb is None else (rpb,))]
    want, want_lse = reference.neighborhood_attention(
        *leaves[:3], case.problem, case.scale, leaves[3] if case.biased else None
    )
    gradients = torch.autograd.grad((want * grad_out).sum() + (want_lse * grad_lse).sum(), leaves)

    common = (case.problem, case.scale, rpb, case.tuning)
    out, lse = interpreter.call(MODULE, "forward", q, k, v, *common)
    found = interpreter.call(MODULE, "backward", grad_out, grad_lse, q, k, v, out, lse, *common)
    forward, backward = TOLERANCE[case.dtype]
    assert (out.dtype, lse.dtype) == (case.dtype, torch.float32)
    torch.testing.assert_close(out.double(), want, atol=forward, rtol=forward)
    torch.testing.assert_close(lse.double(), want_lse, atol=forward, rtol=forward)
    assert (found[3] is None) == (rpb is None)
    for name, gradient, wanted in zip("qkvb", found, gradients, strict=False):
        torch.testing.assert_close(
            gradient.double(), wanted, atol=backward * float(1 + wanted.abs().max()), rtol=backward, msg=f"d{name}"
        )
    assert out.equal(interpreter.call(MODULE, "forward", q, k, v, *common)[0])


def test_views_of_packed_projections_need_no_copy_and_expanded_gradients_are_taken(interpreter):
    case = Case((18,), (5,), heads=2, groups=2)
    qkv = torch.randn(1, 18, 3, 2, 16)
    q, k, v = qkv.unbind(2)
    grad_out = torch.ones(()).expand(1, 18, 2, 16)
    common = (case.problem, case.scale, None, case.tuning)
    launch = gpu.forward_launch(q, k, v, torch.empty(q.shape), torch.empty(q.shape[:-1]), *common)
    assert launch.arguments["q"].data_ptr() == qkv.data_ptr()
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v)]
    want, _ = reference.neighborhood_attention(*leaves, case.problem, case.scale)
    gradients = torch.autograd.grad(want.sum(), leaves)
    out, lse = interpreter.call(MODULE, "forward", q, k, v, *common)
    found = interpreter.call(MODULE, "backward", grad_out, None, q, k, v, out, lse, *common)
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
    for gradient, wanted in zip(found, gradients, strict=False):
        torch.testing.assert_close(gradient.double(), wanted, atol=1e-5, rtol=1e-5)


def test_offsets_beyond_32_bits_are_not_wrapped(interpreter):
    near, far = interpreter.call("tests.kernels.neighborhood_attention.interpreted", "far_apart", 2**27)
    assert near.equal(far)


@pytest.mark.parametrize("shape", [(0, 6, 2, 16), (2, 6, 0, 16), (1, 0, 1, 16)])
def test_nothing_is_launched_for_empty_tensors(interpreter, shape):
    q = torch.randn(shape)
    problem = Problem.of(shape[1:2], 2)
    out, lse = interpreter.call(MODULE, "forward", q, q, q, problem, 1.0)
    dq, dk, dv, drpb = interpreter.call(MODULE, "backward", out, None, q, q, q, out, lse, problem, 1.0)
    assert [x.shape for x in (out, dq, dk, dv)] == [q.shape] * 4
    assert lse.shape == q.shape[:-1]
    assert drpb is None


@pytest.mark.parametrize("seed", range(40))
def test_the_kernels_find_each_window_and_its_inverse_as_the_problem_does(interpreter, seed):
    draw = torch.Generator().manual_seed(seed)

    def upto(limit: int) -> int:
        return int(torch.randint(1, limit + 1, (), generator=draw))

    n = upto(30)
    w = upto(n)
    axis = Axis(n, w, upto(w), 1, bool(seed % 2))
    reach = upto(6) - 1
    low, high, first, end = interpreter.call("tests.kernels.neighborhood_attention.interpreted", "probed", axis, reach)
    starts, ends = axis.group_windows(0)
    assert (low.tolist(), high.tolist()) == (starts.tolist(), ends.tolist())
    for key in range(n):
        viewers = [q for q in range(n) if starts[q] <= min(key + reach, n - 1) and ends[q] > key]
        assert set(viewers) <= set(range(first[key], end[key]))
        assert (viewers[0], viewers[-1] + 1) == (first[key], end[key])


@pytest.mark.parametrize("target", _triton.TARGETS)
def test_each_gpu_gets_its_matrix_instructions_no_atomics_and_fits_its_shared_memory(target):
    q = torch.empty(1, 30, 48, 80, 24, 128, dtype=torch.float16, device="meta")
    lse = torch.empty(q.shape[:-1], device="meta")
    problem, tuning = Problem.of((30, 48, 80), (18, 24, 24)), gpu.Tuning(target)
    launches = [
        gpu.forward_launch(q, q, q, q, lse, problem, 0.1, None, tuning),
        *gpu.backward_launches(q, q, q, q, lse, lse, q, q, q, problem, 0.1, None, tuning),
    ]
    for launch in launches:
        compiled = launch.compile(target)
        code = compiled.asm["amdgcn" if target.startswith("gfx") else "ptx"]
        assert INSTRUCTION[target] in code
        assert not re.search(r"\batom\b|\bred\.|_atomic_", code)
        assert compiled.metadata.shared <= SHARED_BYTES[target]
        if target in ("sm_90", "sm_100"):
            assert "cp.async.bulk.tensor" in code, "boxes of tokens should come by the bulk copies"


def test_loads_products_and_softmax_get_warps_of_their_own_on_blackwell_when_asked():
    q = torch.empty(1, 4096, 8, 64, dtype=torch.float16, device="meta")
    lse, problem = torch.empty(q.shape[:-1], device="meta"), Problem.of((4096,), 512)
    codes = []
    for specialize in (False, True):
        tuning = gpu.Tuning("sm_100", specialize=specialize)
        codes.append(gpu.forward_launch(q, q, q, q, lse, problem, 0.1, None, tuning).compile("sm_100").asm["ttgir"])
    assert ["ttg.warp_specialize" in code for code in codes] == [False, True]


def test_the_bias_and_its_gradient_compile():
    q = torch.empty(2, 14, 14, 4, 32, dtype=torch.bfloat16, device="meta")
    lse, rpb = torch.empty(q.shape[:-1], device="meta"), torch.empty(4, 13, 13, device="meta")
    problem, tuning = Problem.of((14, 14), 7), gpu.Tuning("sm_90")
    bias = gpu.grad_bias_launch(q, q, q, q, lse, lse, problem, 0.1, rpb)
    for launch in (gpu.forward_launch(q, q, q, q, lse, problem, 0.1, rpb, tuning), bias):
        assert ".visible .entry" in launch.compile("sm_90").asm["ptx"]
    assert not re.search(r"\batom\b|\bred\.", bias.compile("sm_90").asm["ptx"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [32, 64, 96, 128, 256])
@pytest.mark.parametrize("target", _triton.TARGETS)
def test_every_head_size_compiles_and_fits(target, size, dtype):
    q = torch.empty(2, 56, 56, 4, size, dtype=dtype, device="meta")
    lse = torch.empty(q.shape[:-1], device="meta")
    problem, tuning = Problem.of((56, 56), 7), gpu.Tuning(target)
    launches = [
        gpu.forward_launch(q, q, q, q, lse, problem, 0.1, None, tuning),
        *gpu.backward_launches(q, q, q, q, lse, lse, q, q, q, problem, 0.1, None, tuning),
    ]
    for launch in launches:
        assert launch.compile(target).metadata.shared <= SHARED_BYTES[target]


def test_tiles_are_boxes_of_the_wanted_size_and_the_cheapest_of_them():
    problem = Problem.of((30, 48, 80), (18, 24, 24))
    walker, walked = tiles(problem, 128, 128)
    assert torch.tensor([walker, walked]).prod(1).tolist() == [128, 128]
    # a line of 128 tokens would walk a span of 151 tokens along the last axis for a window of 24
    assert walker != (1, 1, 128)
    assert tiles(Problem.of((4096,), 255), 128, 64) == ((1, 1, 128), (1, 1, 64))


@pytest.mark.parametrize(("window", "stride"), [(24, 8), (16, 16)])
def test_strides_that_tiles_divide_make_every_tile_dense(window, stride):
    problem = Problem.of((64,), window, stride)
    (_, _, queries), (_, _, keys) = tiles(problem, stride, 8)
    assert (queries, keys) == (stride, 8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of a machine without a GPU")
def test_a_refusal_says_what_was_wanted():
    q = torch.randn(1, 6, 1, 16)
    with pytest.raises(ValueError, match=r"q: Triton kernels run on a GPU; the tensors are on cpu"):
        gpu.forward(q, q, q, Problem.of((6,), 3), 1.0)
    assert "finds no GPU" in str(_triton.why_not(torch.device("cuda")))


def test_dtypes_and_sizes_without_a_kernel_are_refused_with_the_reason(interpreter):
    q = torch.randn(1, 6, 1, 16)
    assert interpreter.call(MODULE, "why_not", q, q) is None
    assert "got torch.int32" in interpreter.call(MODULE, "why_not", q.int(), q.int())
    wide = torch.randn(1, 6, 1, 257)
    assert "up to 256 features; got 257" in interpreter.call(MODULE, "why_not", wide, wide)


def test_float64_goes_to_the_reference():
    q = torch.randn(1, 6, 1, 16, dtype=torch.float64)
    problem = Problem.of((6,), 3)
    out, lse = gpu.forward(q, q, q, problem, 1.0)
    assert out.equal(reference.neighborhood_attention(q, q, q, problem, 1.0)[0])
    assert len(gpu.backward(out, None, q, q, q, out, lse, problem, 1.0)) == 4
