import random

import numpy as np
import pytest
import torch

from gnomon.kernels import _native
from gnomon.kernels.neighborhood_attention import cpu, reference
from gnomon.kernels.neighborhood_attention.problem import Problem

pytestmark = pytest.mark.skipif(_native.compiler() is None, reason="no C++ compiler")

# largest error relative to the largest entry (of the reference, and at least 1): a few roundings of the dtype
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
HEAD_SIZES = (1, 3, 8, 16, 20, 24, 32, 40, 64, 80, 97, 160)


def a_problem(rng, largest=(150, 14, 7)):
    """A window with every rule in it: strides, dilations that do not divide, causal axes, w = 1 and w = n."""
    axes = rng.choice([1, 2, 3])
    rows = []
    for _ in range(axes):
        n = rng.randint(1, largest[axes - 1])
        d = rng.choice([1, 1, min(2, n), min(3, n)])
        w = rng.randint(1, n // d)
        rows.append((n, w, rng.choice([1, rng.randint(1, w)]), d, rng.random() < 0.3))
    return Problem.of(*zip(*rows, strict=True))


def tensors(problem, rng, dtype, size):
    kv_heads = rng.choice([1, 2])
    heads, batch = kv_heads * rng.choice([1, 2, 3]), rng.choice([1, 2])
    q = torch.randn(batch, *problem.space, heads, size).to(dtype)
    k, v = torch.randn(2, batch, *problem.space, kv_heads, size).to(dtype)
    rpb = torch.randn(heads, *(2 * w - 1 for w in problem.kernel_size)) if rng.random() < 0.4 else None
    return q, k, v, rpb


def run(q, k, v, problem, rpb, isa=None, module=cpu):
    """Outputs, and gradients through both of them."""
    options = {"isa": isa} if module is cpu else {}
    scale = q.shape[-1] ** -0.5
    out, lse = (
        module.neighborhood_attention(q, k, v, problem, scale, rpb)
        if module is reference
        else module.forward(q, k, v, problem, scale, rpb, **options)
    )
    torch.manual_seed(1)
    grad_out, grad_lse = torch.randn(q.shape).to(q.dtype), torch.randn(lse.shape).to(lse.dtype)
    return out, lse, *module.backward(grad_out, grad_lse, q, k, v, out, lse, problem, scale, rpb, **options)


def in_float64(q, k, v, problem, rpb):
    q64, k64, v64 = (x.double() for x in (q, k, v))
    out, lse = reference.neighborhood_attention(
        q64, k64, v64, problem, q.shape[-1] ** -0.5, None if rpb is None else rpb.double()
    )
    torch.manual_seed(1)
    grad_out, grad_lse = torch.randn(q.shape).to(q.dtype).double(), torch.randn(lse.shape).double()
    found = reference.backward(
        grad_out, grad_lse, q64, k64, v64, out, lse, problem, q.shape[-1] ** -0.5, None if rpb is None else rpb.double()
    )
    return out, lse, *found


def assert_near(got, wanted, tolerance, note):
    for name, a, b in zip(("out", "lse", "dq", "dk", "dv", "drpb"), got, wanted, strict=True):
        if b is not None:
            error = (a.double() - b.double()).abs().max() / b.abs().max().clamp(min=1)
            assert error < tolerance, f"{name} is off by {error:.1e}: {note}"


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_variant_agrees_with_the_definition_in_float64(isa, dtype):
    rng = random.Random(f"{isa} {dtype}")
    for _ in range(25):
        problem, size = a_problem(rng), rng.choice(HEAD_SIZES)
        given = tensors(problem, rng, dtype, size)
        note = f"{problem}, shapes {[None if x is None else tuple(x.shape) for x in given]}"
        q, k, v, rpb = given
        wanted = in_float64(q, k, v, problem, rpb)
        assert_near(run(q, k, v, problem, rpb, isa), wanted, TOLERANCE[dtype], note)


def test_the_gradient_has_the_same_bits_on_one_and_on_more_threads():
    rng = random.Random(4)
    for _ in range(20):
        problem = a_problem(rng)
        q, k, v, rpb = tensors(problem, rng, torch.float32, 16)
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            try:
                found.append(run(q, k, v, problem, rpb))
            finally:
                torch.set_num_threads(1)
        for one, two, five in zip(*found, strict=True):
            assert one is None or (torch.equal(one, two) and torch.equal(one, five)), problem


@pytest.mark.parametrize("space", [(3, 200), (900,)])
def test_a_problem_of_one_head_is_cut_into_units_that_add_to_the_same_keys(space):
    """dK and dV of one key then come from several units: the path with partial sums."""
    problem = Problem.of(space, (1, 9) if len(space) == 2 else 31)
    q, k, v = torch.randn(3, 1, *space, 1, 8)
    rpb = torch.randn(1, *(2 * w - 1 for w in problem.kernel_size))
    assert_near(run(q, k, v, problem, rpb), in_float64(q, k, v, problem, rpb), 1e-5, problem)


def test_strided_expanded_and_transposed_inputs_give_what_their_copies_give():
    problem = Problem.of((6, 7), 3, dilation=2)
    heads_first = torch.randn(2, 3, 6, 7, 16)
    q = heads_first.permute(0, 2, 3, 1, 4)
    k = torch.randn(2, 6, 7, 1, 16).expand(2, 6, 7, 3, 16)
    v = torch.randn(2, 6, 7, 3, 32)[..., ::2]
    for got, wanted in zip(
        run(q, k, v, problem, None), run(q.contiguous(), k.contiguous(), v.contiguous(), problem, None), strict=True
    ):
        assert got is None or torch.equal(got, wanted)


def test_a_tensor_beyond_two_to_the_31_elements_is_not_wrapped():
    """The last batch lies past element 2^31 of memory that is never touched, so that the test needs little."""
    batch, space, heads, size = 2**14 + 1, (128,), 4, 256
    stride = 128 * heads * size
    assert (batch - 1) * stride >= 2**31
    storage = torch.from_numpy(np.zeros((batch * stride,), dtype=np.uint16)).view(torch.bfloat16)  # untouched zeros
    whole = storage.view(batch, *space, heads, size)
    part = torch.randn(1, *space, heads, size).bfloat16()
    whole[-1:] = part
    problem = Problem.of(space, 9)
    # batches 0 and 2^14: one call on both, with a stride past 2^31 between them
    both = whole[:: batch - 1]
    assert both.stride(0) >= 2**31
    out, lse = cpu.forward(both, both, both, problem, 0.1)
    alone, lse_alone = cpu.forward(part, part, part, problem, 0.1)
    assert torch.equal(out[1:], alone)
    assert torch.equal(lse[1:], lse_alone)
    assert not out[0].any()


def test_not_a_number_reaches_the_queries_that_see_it():
    problem = Problem.of((64,), 3)
    q, k, v = torch.randn(3, 1, 64, 1, 8)
    k[0, 5] = torch.nan
    out, lse = cpu.forward(q, k, v, problem, 1.0)
    assert out[0, 4:7].isnan().all()
    assert lse[0, 4:7].isnan().all()
    assert not out[0, 32:].isnan().any()


@pytest.mark.parametrize("scale", [0.0, 1e-3, 30.0])
def test_flat_and_peaked_softmaxes_are_right(scale):
    problem = Problem.of((9, 9), 5)
    q, k, v = torch.randn(3, 1, 9, 9, 2, 16) * 3
    out, lse = cpu.forward(q, k, v, problem, scale)
    wanted, lse_wanted = reference.neighborhood_attention(q.double(), k.double(), v.double(), problem, scale)
    # a score's rounding is that of its size, and the softmax turns it into a relative error
    error = 4 * torch.finfo(torch.float32).eps * max(1.0, lse_wanted.abs().max().item())
    torch.testing.assert_close(out.double(), wanted, atol=3 * error * v.abs().max().item(), rtol=0)
    torch.testing.assert_close(lse.double(), lse_wanted, atol=error, rtol=error)


def test_without_a_compiler_the_reference_runs_after_one_warning(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    kernels = _native.Kernels(cpu.KERNELS.name, cpu.KERNELS.source, {})
    problem = Problem.of((12,), 5)
    q, k, v = torch.randn(3, 1, 12, 2, 8)
    with pytest.warns(RuntimeWarning, match="neighborhood attention runs its slower reference: no C\\+\\+ compiler"):
        out, _ = cpu.forward(q, k, v, problem, 0.5, kernels=kernels)
    again, _ = cpu.forward(q, k, v, problem, 0.5, kernels=kernels)  # no second warning, which would be an error
    torch.testing.assert_close(out, cpu.forward(q, k, v, problem, 0.5)[0])
    assert torch.equal(out, again)


@pytest.mark.parametrize("is_backward", [False, True])
def test_extra_memory_grows_with_the_tokens_not_with_their_square(is_backward):
    sizes = []
    for n in (4096, 16384):
        x = torch.empty(1, n, 4, 32)
        sizes.append(cpu.extra_bytes(x, x, Problem.of((n,), 255), is_backward=is_backward))
    assert sizes[1] < 5 * sizes[0]
    assert sizes[1] < 16384 * 4 * 32 * 4 * 8  # a few copies of q
