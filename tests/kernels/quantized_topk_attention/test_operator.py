"""The C++ kernels against the reference, gradients, and the operator's contract with torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.kernels._native import isas
from gnomon.kernels.quantized_topk_attention import (
    cpu,
    quantized_topk_attention,
    quantized_topk_attention_packed,
    reference,
)

OP = torch.ops.gnomon.quantized_topk_attention


@st.composite
def problems(draw):
    group, heads = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    sizes = [draw(st.integers(1, n)) for n in (3, 40, 70, 40, 20)]  # B, N, L, D, E
    mask = draw(st.sampled_from([None, "keys", "all"]))
    return group, heads, *sizes, mask, draw(st.integers(1, 16)), draw(st.integers(1, 80)), draw(st.booleans())


def tensors(group, heads, batch, queries, keys, size, value_size, mask, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, heads * group, queries, size, generator=generator)
    k, v = (torch.randn(batch, heads, keys, n, generator=generator) for n in (size, value_size))
    shapes = {"keys": (batch, 1, 1, keys), "all": (batch, heads * group, queries, keys)}
    seen = None if mask is None else torch.rand(shapes[mask], generator=generator) > 0.6
    return q, k, v, seen


@given(problems(), st.integers(0, 1000))
@settings(max_examples=150)
def test_the_kernel_chooses_the_keys_of_the_reference_and_attends_as_it_does(problem, seed):
    *shape, mask, bits, topk, causal = problem
    q, k, v, seen = tensors(*shape, mask, seed)
    found = OP(q, k, v, seen, None, topk, bits, [1, 1], causal, 0.3)
    wanted = reference.quantized_topk_attention(q, k, v, seen, None, topk, bits, (1, 1), causal, 0.3)
    assert torch.equal(found[2], wanted.kept)
    for a, b in zip(found[:2], wanted[:2], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    grad = torch.randn(found[0].shape, generator=torch.Generator().manual_seed(seed))
    call = torch.ops.gnomon.quantized_topk_attention_backward
    mine = call(grad, q, k, v, seen, None, *found, topk, [1, 1], causal, 0.3)
    theirs = reference.backward(grad, q, k, v, seen, None, wanted.kept, (1, 1), causal, 0.3)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("isa", isas())
def test_every_instruction_set_chooses_the_same_keys(isa):
    if cpu.KERNELS.why_not(isa) is not None:
        pytest.skip(str(cpu.KERNELS.why_not(isa)))
    shapes = ((64, 4, None), (30, 3, "all"), (300, 4, "keys"), (7, 1, None), (64, 8, "all"), (9, 16, None))
    for size, bits, mask in shapes:
        q, k, v, seen = tensors(2, 2, 2, 33, 100, size, 20, mask)
        for topk in (1, 30, 100):
            out, _, kept = cpu.forward(q, k, v, seen, None, topk, bits, (1, 1), False, 0.2, isa)
            wanted = reference.quantized_topk_attention(q, k, v, seen, None, topk, bits, (1, 1), False, 0.2)
            assert torch.equal(kept, wanted.kept)
            torch.testing.assert_close(out, wanted.out, atol=2e-5, rtol=1e-5)


def test_sums_of_16_bits_do_not_overflow_at_their_limit():
    for size in (310, 312, 313, 320, 1000):
        q = torch.ones(1, 1, 3, size)
        k = torch.ones(1, 1, 40, size)
        k[0, 0, 17] *= -1
        k[0, 0, 20, 0] = 0.5
        v = torch.randn(1, 1, 40, 4)
        found = OP(q, k, v, None, None, 39, 4, [1, 1], False, 0.01)
        assert found[2][0, 0, 0].tolist() == [j for j in range(40) if j != 17]


def test_the_choice_is_not_changed_by_strides_or_threads():
    q, k, v, seen = tensors(2, 2, 3, 50, 60, 32, 32, "all")
    wanted = OP(q, k, v, seen, None, 9, 4, [1, 1], False, 0.2)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    odd = torch.randn(3, 4, 50, 64)[..., ::2].copy_(q)
    for a, b in zip(OP(*turned, seen, None, 9, 4, [1, 1], False, 0.2), wanted, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(OP(odd, k, v, seen, None, 9, 4, [1, 1], False, 0.2)[0], wanted[0])
    torch.set_num_threads(3)
    try:
        for a, b in zip(OP(q, k, v, seen, None, 9, 4, [1, 1], False, 0.2), wanted, strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_chooses_by_the_numbers_it_holds(dtype):
    q, k, v, seen = tensors(1, 2, 2, 20, 30, 16, 16, "keys")
    q, k, v = (x.to(dtype) for x in (q, k, v))
    found = OP(q, k, v, seen, None, 5, 4, [1, 1], False, 0.25)
    wanted = OP(q.float(), k.float(), v.float(), seen, None, 5, 4, [1, 1], False, 0.25)
    assert found[0].dtype == dtype
    assert torch.equal(found[2], wanted[2])
    assert torch.equal(found[0], wanted[0].to(dtype))


@pytest.mark.parametrize("packed", [False, True])
def test_gradients_are_those_of_the_exact_step(packed):
    """Numerical differences are taken where the choice stays: it is stable, but for a set of measure zero."""
    q, k, v, _ = tensors(2, 1, 1, 9, 9, 4, 3, None)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    bounds = torch.tensor([0, 1, 5, 9]) if packed else None
    assert torch.autograd.gradcheck(
        lambda q, k, v: OP(q, k, v, None, bounds, 3, 4, [1, 1], False, 0.5)[0], leaves, eps=1e-7, atol=1e-5
    )


def test_gradients_of_the_kernel_are_those_of_the_reference_by_autograd():
    q, k, v, seen = tensors(2, 2, 2, 20, 30, 8, 12, "all")
    grad = torch.randn(2, 4, 20, 12)
    found, wanted = [], []
    for into, call in ((found, OP), (wanted, reference.quantized_topk_attention)):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = call(*leaves, seen, None, 5, 4, [1, 1], True, 0.3)[0]
        into += torch.autograd.grad(out, leaves, grad)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_torch_accepts_the_operator():
    q, k, v, seen = tensors(2, 1, 2, 5, 7, 4, 6, "all")
    leaves = [x.requires_grad_() for x in (q, k, v)]
    torch.library.opcheck(OP, (*leaves, seen, None, 3, 4, [1, 1], False, 0.5))
    torch.library.opcheck(OP, (*leaves, seen, None, 3, 4, [2, 3], True, 0.5))
    q, k, v, _ = tensors(2, 1, 1, 7, 7, 4, 6, None)
    torch.library.opcheck(OP, (q, k, v, None, torch.tensor([0, 3, 7]), 3, 4, [1, 1], False, 0.5))


@given(lengths=st.lists(st.integers(1, 40), max_size=6), topk=st.integers(1, 50), causal=st.booleans())
def test_packed_sequences_attend_as_each_alone(lengths, topk, causal):
    total = sum(lengths)
    q, k, v = (torch.randn(total, h, 8) for h in (4, 2, 2))
    bounds = torch.tensor([0, *torch.tensor(lengths, dtype=torch.int32).cumsum(0)], dtype=torch.int32)
    out = quantized_topk_attention_packed(q, k, v, bounds, topk, is_causal=causal)
    parts = [
        quantized_topk_attention(*(x[None].transpose(1, 2) for x in one), topk, is_causal=causal)[0].transpose(0, 1)
        for one in zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    ]
    assert torch.equal(out, torch.cat([torch.empty(0, 4, 8), *parts]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"q": torch.randn(3, 4)}, r"q must be \[B, heads, tokens, size\]; got shape \[3, 4\]"),
        ({"k": torch.randn(1, 2, 6, 5)}, r"k must be \[B, G, L, D\]"),
        ({"k": torch.randn(1, 2, 6, 4).double()}, "k must be floating point, of one dtype with q; got torch.float64"),
        ({"v": torch.randn(1, 2, 7, 4)}, r"v must have the sequences, heads and keys of k \[1, 2, 6\]"),
        (
            {"k": torch.randn(1, 3, 6, 4), "v": torch.randn(1, 3, 6, 4)},
            "k must have a number of heads that divides the 4",
        ),
        ({"topk": 0}, "topk must be at least 1 key; got 0"),
        ({"bits": 17}, "bits must be from 1 to 16; got 17"),
        ({"bits": 0}, "bits must be from 1 to 16; got 0"),
        ({"mask": torch.ones(6)}, "mask must be bool, True where a key is seen; got torch.float32"),
        ({"mask": torch.ones(5, 5, dtype=torch.bool)}, r"mask must broadcast to \[B, H, N, L\] = \[1, 4, 5, 6\]"),
        ({"scale": 0.0}, "scale must be a positive number; got 0.0"),
        ({"block": (0, 1)}, r"block must be \(queries, keys\), both at least 1"),
    ],
)
def test_bad_arguments_are_named(changed, message):
    given = {"q": torch.randn(1, 4, 5, 4), "k": torch.randn(1, 2, 6, 4), "v": torch.randn(1, 2, 6, 4), **changed}
    with pytest.raises(ValueError, match=message):
        quantized_topk_attention(**given)


def test_packed_arguments_are_named():
    q = torch.randn(5, 2, 4)
    with pytest.raises(ValueError, match="cu_seqlens must go from 0 to the 5 tokens of q; got 0 to 4"):
        quantized_topk_attention_packed(q, q, q, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="k must have the 5 tokens of q; got 4"):
        quantized_topk_attention_packed(q, q[:4], q, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"v must be \[T, heads, size\]"):
        quantized_topk_attention_packed(q, q, q[0], torch.tensor([0, 5]))


def test_no_queries_and_no_keys_are_allowed():
    none = torch.randn(2, 2, 0, 4)
    some = torch.randn(2, 2, 3, 4)
    assert quantized_topk_attention(none, some, some).shape == (2, 2, 0, 4)
    out, stats = quantized_topk_attention(some, none, none, return_stats=True)
    assert out.eq(0).all()
    assert stats.empty_rows.all()


@pytest.mark.compile
def test_it_compiles_as_one_graph():
    q, k, v, _ = tensors(2, 1, 1, 9, 9, 4, 6, None)
    run = torch.compile(lambda *x: quantized_topk_attention(*x, 3).sum(), fullgraph=True)
    torch.testing.assert_close(run(q, k, v), quantized_topk_attention(q, k, v, 3).sum())
