"""Packed attention against float64 and torch's own attention, gradients, and the operator's contract with torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from gnomon.kernels._native import isas
from gnomon.kernels.packed_attention import cpu, packed_attention, reference

OP = torch.ops.gnomon.packed_attention
LENGTHS = st.lists(st.integers(1, 60) | st.sampled_from([127, 128, 129, 300]), min_size=1, max_size=5)


def bounds(lengths):
    return torch.tensor([0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()])


def tensors(lengths, heads=4, groups=2, size=8, value_size=8, dtype=torch.float32):
    total = sum(lengths)
    shapes = ((heads, size), (groups, size), (groups, value_size))
    return [torch.randn(total, *shape, dtype=dtype) for shape in shapes]


@given(LENGTHS, st.sampled_from([(1, 1), (4, 2), (3, 3)]), st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_it_is_attention_within_each_sequence_forward_and_backward(lengths, heads, size, value_size, causal):
    q, k, v = tensors(lengths, *heads, size, value_size)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    out, lse = packed_attention(*leaves, bounds(lengths), is_causal=causal, return_lse=True)
    wanted, wanted_lse = reference.packed_attention(*exact, bounds(lengths), causal, size**-0.5)
    torch.testing.assert_close(out.double(), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse.double(), wanted_lse, atol=1e-5, rtol=1e-5)
    grads = torch.randn_like(out), torch.randn_like(lse)
    found = torch.autograd.grad((out, lse), leaves, grads)
    expected = torch.autograd.grad((wanted, wanted_lse), exact, [g.double() for g in grads])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_the_reference_is_torchs_attention_of_each_sequence(causal):
    lengths = [3, 1, 9]
    q, k, v = tensors(lengths, 4, 2, 8, 6, torch.float64)
    out = reference.packed_attention(q, k, v, bounds(lengths), causal, 0.3).out
    for one, *qkv in zip(*(x.split(lengths) for x in (out, q, k, v)), strict=True):
        alone = (x.transpose(0, 1)[None] for x in qkv)
        wanted = scaled_dot_product_attention(*alone, is_causal=causal, scale=0.3, enable_gqa=True)
        torch.testing.assert_close(one, wanted[0].transpose(0, 1))


@given(st.permutations([1, 5, 24, 25, 130]))
def test_a_sequence_gives_the_same_bits_in_every_batch(lengths):
    generator = torch.Generator().manual_seed(0)
    alone = {n: [torch.randn(n, 2, 16, generator=generator) for _ in range(3)] for n in sorted(lengths)}
    out = packed_attention(*(torch.cat([alone[n][i] for n in lengths]) for i in range(3)), bounds(lengths))
    for n, one in zip(lengths, out.split(lengths), strict=True):
        assert torch.equal(one, packed_attention(*alone[n], torch.tensor([0, n])))


def test_the_number_of_threads_changes_no_bit():
    lengths = [30, 1, 200, 7, 64]
    leaves = [x.requires_grad_() for x in tensors(lengths, 4, 2, 32, 32)]

    def run():
        out = packed_attention(*leaves, bounds(lengths))
        return out, *torch.autograd.grad(out.square().sum(), leaves)

    one = run()
    torch.set_num_threads(3)
    try:
        for a, b in zip(one, run(), strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("causal", [False, True])
def test_every_instruction_set_agrees_with_the_reference(isa, causal):
    if cpu.KERNELS.why_not(isa) is not None:
        pytest.skip(str(cpu.KERNELS.why_not(isa)))
    lengths = [1, 50, 150]
    q, k, v = tensors(lengths, 4, 2, 33, 20)
    at, args = bounds(lengths), (150, causal, -0.4)
    out, lse = cpu.forward(q, k, v, at, *args, isa)
    wanted = reference.packed_attention(q, k, v, at, causal, -0.4)
    torch.testing.assert_close((out, lse), tuple(wanted), atol=1e-5, rtol=1e-5)
    grads = torch.randn_like(out), torch.randn_like(lse)
    found = cpu.backward(*grads, q, k, v, at, out, lse, *args, isa)
    exact = reference.backward(*grads, q, k, v, at, out, lse, causal, -0.4)
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_strides_do_not_matter():
    lengths = [4, 9]
    q, k, v = tensors(lengths, 2, 2, 16, 16)
    fused = torch.stack([q, k, v], 2)  # one projection, as many models have it
    turned = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v))
    wanted = packed_attention(q, k, v, bounds(lengths))
    assert torch.equal(packed_attention(*fused.unbind(2), bounds(lengths)), wanted)
    assert torch.equal(packed_attention(*turned, bounds(lengths)), wanted)
    wide = torch.randn(13, 2, 32)[..., ::2].copy_(q)
    assert torch.equal(packed_attention(wide, k, v, bounds(lengths).int(), 9), wanted)


def test_large_scores_neither_overflow_nor_vanish():
    q, k, v = (x * 1e3 for x in tensors([140], 1, 1, 8, 8))
    exact = reference.packed_attention(q.double(), k.double(), v.double(), torch.tensor([0, 140]), False, 1.0)
    out, lse = packed_attention(q, k, v, torch.tensor([0, 140]), scale=1.0, return_lse=True)
    torch.testing.assert_close(lse.double(), exact.lse, rtol=1e-5, atol=0)
    assert out.isfinite().all()
    assert out.abs().max() <= v.abs().max()


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_right_in_float64(causal):
    leaves = [x.requires_grad_() for x in tensors([3, 1, 4], 4, 2, 3, 2, torch.float64)]
    assert torch.autograd.gradcheck(
        lambda *x: packed_attention(*x, bounds([3, 1, 4]), is_causal=causal, return_lse=True), leaves
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    q, k, v = (x.to(dtype) for x in tensors([5, 20]))
    out, lse = packed_attention(q, k, v, bounds([5, 20]), return_lse=True)
    wide, wide_lse = packed_attention(q.float(), k.float(), v.float(), bounds([5, 20]), return_lse=True)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    assert torch.equal(out, wide.to(dtype))
    assert torch.equal(lse, wide_lse)


def test_autocast_casts_what_comes_in():
    q, k, v = tensors([5, 20])
    with torch.autocast("cpu", torch.bfloat16):
        out = packed_attention(q, k, v, bounds([5, 20]))
    assert torch.equal(out, packed_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), bounds([5, 20])))


def test_an_empty_batch_gives_empty_outputs_and_gradients():
    leaves = [x.requires_grad_() for x in tensors([])]
    out, lse = packed_attention(*leaves, torch.tensor([0]), return_lse=True)
    assert (out.shape, lse.shape) == ((0, 4, 8), (0, 4))
    assert [g.shape for g in torch.autograd.grad(out.sum(), leaves)] == [x.shape for x in leaves]


def test_a_sequence_of_one_token_is_its_value():
    q, k, v = tensors([1, 1], 4, 2, 8, 5)
    out = packed_attention(q, k, v, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(out, v.repeat_interleave(2, 1))


def test_torch_accepts_the_operator():
    for leaves in (tensors([3, 4], 4, 2, 6, 5), tensors([3, 4], 2, 1, 4, 4, torch.float64)):
        leaves = [x.requires_grad_() for x in leaves]
        torch.library.opcheck(OP, (*leaves, bounds([3, 4]), 4, True, 0.5))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"q": torch.randn(5, 8)}, r"q must be \[T, heads, size\]; got shape \[5, 8\]"),
        ({"k": torch.randn(4, 2, 8)}, r"k must be \[T, G, D\] with T and D >= 1 of q \[5, 4, 8\]"),
        ({"v": torch.randn(5, 1, 8)}, r"v must have the tokens and heads of k \[5, 2\]; got \[5, 1\]"),
        ({"v": torch.randn(5, 2, 8).double()}, "v must be floating point, of one dtype with q; got torch.float64"),
        (
            {"k": torch.randn(5, 3, 8), "v": torch.randn(5, 3, 8)},
            "k must have a number of heads that divides the 4 of q",
        ),
        ({"scale": float("inf")}, "scale must be finite; got inf"),
        ({"cu_seqlens": torch.tensor([0, 4])}, "cu_seqlens must go from 0 to the 5 tokens of q; got 0 to 4"),
        ({"cu_seqlens": torch.tensor([1, 5])}, "cu_seqlens must go from 0 to the 5 tokens of q; got 1 to 5"),
        ({"cu_seqlens": torch.tensor([0, 3, 3, 5])}, "cu_seqlens must increase; got 3, then 3 at 2"),
        ({"cu_seqlens": torch.tensor([0, 4, 2, 5])}, "cu_seqlens must increase; got 4, then 2 at 2"),
        ({"cu_seqlens": torch.tensor([0.0, 5.0])}, "cu_seqlens must be a tensor of int32 or int64; got torch.float32"),
        ({"cu_seqlens": [0, 5]}, "cu_seqlens must be a tensor of int32 or int64; got list"),
        (
            {"cu_seqlens": torch.tensor([[0, 5]])},
            r"cu_seqlens must be \[S \+ 1\], beginning with 0; got shape \[1, 2\]",
        ),
        ({"max_seqlen": 2}, "max_seqlen must be at least the longest sequence, 3; got 2"),
    ],
)
def test_bad_arguments_are_named(changed, message):
    given = {"q": torch.randn(5, 4, 8), "k": torch.randn(5, 2, 8), "v": torch.randn(5, 2, 8)}
    with pytest.raises(ValueError, match=message):
        packed_attention(**{**given, "cu_seqlens": torch.tensor([0, 2, 5]), **changed})


@pytest.mark.compile
def test_it_compiles_as_one_graph():
    leaves = [x.requires_grad_() for x in tensors([3, 4])]
    run = torch.compile(lambda *x: packed_attention(*x, bounds([3, 4]), 4), fullgraph=True)
    torch.testing.assert_close(run(*leaves), packed_attention(*leaves, bounds([3, 4])))
