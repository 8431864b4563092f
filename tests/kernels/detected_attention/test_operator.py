import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.kernels import _native
from gnomon.kernels.detected_attention import (
    block_sparse_attention,
    cpu,
    detect_attend,
    native,
    reference,
    select_top_k,
    sparse_attention,
)

from .problems import estimates, kept, padding, problems, qkv

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def gradients(out, lse, inputs, seed=0):
    """Of a random weighting of both outputs; queries that see nothing have no finite lse and no gradient."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    other = torch.randn(lse.shape, generator=generator, dtype=torch.float64)
    some = torch.isfinite(lse)
    total = (out.double() * weight).sum() + (lse.double()[some] * other[some]).sum()
    return torch.autograd.grad(total, inputs)


def close(found, wanted, dtype):
    """Within rounding of `dtype`, in units of the largest value."""
    for one, other in zip(found, wanted, strict=True):
        one, other = one.detach(), other.detach()
        finite = torch.isfinite(other)
        assert torch.equal(torch.isfinite(one), finite)
        if finite.any():
            size = max(1.0, float(other[finite].abs().max()))
            assert float((one.double() - other)[finite].abs().max()) <= TOLERANCE[dtype] * size


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(z=problems())
@settings(max_examples=25)
def test_kept_keys_forward_and_backward_are_those_of_the_float64_definition(z, dtype):
    inputs = qkv(z, dtype, requires_grad=True)
    wide = [x.detach().double().requires_grad_() for x in inputs]
    index, count = kept(z)
    found = sparse_attention(*inputs, index, count, 0.3)
    wanted = reference.sparse_attention(*wide, index, count, 0.3)
    close(found, wanted, dtype)
    close(gradients(*found, inputs), gradients(*wanted, wide), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(z=problems(), down=st.integers(1, 40), right=st.integers(1, 40), is_causal=st.booleans(), padded=st.booleans())
@settings(max_examples=25)
def test_kept_blocks_forward_and_backward_are_those_of_the_float64_definition(z, dtype, down, right, is_causal, padded):
    inputs = qkv(z, dtype, requires_grad=True)
    wide = [x.detach().double().requires_grad_() for x in inputs]
    index, count = kept(z | {"N": -(-z["N"] // down), "M": -(-z["M"] // right)})
    mask = padding(z, padded)
    found = block_sparse_attention(*inputs, index, count, (down, right), is_causal, mask, 0.3)
    wanted = reference.block_sparse_attention(*wide, index, count, (down, right), is_causal, mask, 0.3)
    close(found, wanted, dtype)
    close(gradients(*found, inputs), gradients(*wanted, wide), dtype)


def test_long_rows_that_are_walked_in_chunks_of_keys_are_right():
    z = {"B": 1, "H": 2, "G": 1, "N": 70, "M": 2500, "D": 64, "R": 4, "seed": 0}
    inputs = qkv(z, requires_grad=True)
    wide = [x.detach().double().requires_grad_() for x in inputs]
    index, count = kept(z, 700)
    found = sparse_attention(*inputs, index, count)
    wanted = reference.sparse_attention(*wide, index, count, 0.125)
    close(found, wanted, torch.float32)
    close(gradients(*found, inputs), gradients(*wanted, wide), torch.float32)


@given(problems(), st.floats(0.01, 1), st.booleans(), st.booleans())
def test_detection_and_attention_in_one_are_the_two_after_each_other(z, retention, is_causal, padded):
    mask, (q, k, v), operands = padding(z, padded), qkv(z), estimates(z)
    whole = detect_attend(*operands, q, k, v, retention, is_causal, mask)
    parts = sparse_attention(q, k, v, *select_top_k(*operands, retention, is_causal, mask))
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("isa", ["avx512", "avx2", pytest.param("baseline", marks=pytest.mark.slow)])
def test_every_instruction_set_gives_the_definition(isa):
    if reason := native.KERNELS.why_not(isa):
        pytest.skip(reason)
    library = native.KERNELS.library(isa)
    z = {"B": 2, "H": 2, "G": 1, "N": 33, "M": 1400, "D": 40, "R": 16, "seed": 1}
    (q, k, v), operands, mask = qkv(z), estimates(z, 127), padding(z)
    index, count = native.select_top_k(library, *operands, mask, True, 0.2)
    wanted = cpu.select.top_k_of_integers(*operands, mask, True, 0.2)
    assert torch.equal(index, wanted.indices)
    assert torch.equal(count, wanted.counts)
    found = native.token_forward(library, q, k, v, index, count, 0.3)
    close(found, reference.sparse_attention(q.double(), k.double(), v.double(), index, count, 0.3), q.dtype)


def test_results_do_not_depend_on_the_number_of_threads():
    z = {"B": 2, "H": 4, "G": 2, "N": 150, "M": 300, "D": 32, "R": 8, "seed": 0}
    operands, tiled = estimates(z), z | {"N": 10, "M": 19}

    def everything():
        inputs = qkv(z, requires_grad=True)
        results = list(select_top_k(*operands, 0.2))
        tokens = sparse_attention(*inputs, *results)
        blocks = block_sparse_attention(*inputs, *kept(tiled), (16, 16))
        return [*results, *tokens, *gradients(*tokens, inputs), *blocks, *gradients(*blocks, inputs)]

    one = everything()
    torch.set_num_threads(3)
    try:
        three = everything()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_strided_inputs_are_read_as_they_are():
    z = {"B": 2, "H": 2, "G": 2, "N": 9, "M": 9, "D": 16, "R": 1, "seed": 0}
    q, k, v = qkv(z)
    index, count = kept(z)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    flipped = [x.flip(-1).contiguous().flip(-1) for x in strided]
    wanted = sparse_attention(q, k, v, index, count)
    for inputs in (strided, flipped):
        for one, other in zip(sparse_attention(*inputs, index, count), wanted, strict=True):
            assert torch.equal(one, other)


def test_gradients_of_a_frozen_kept_set_pass_a_numerical_check():
    z = {"B": 1, "H": 2, "G": 1, "N": 4, "M": 6, "D": 3, "R": 1, "seed": 0}
    inputs = qkv(z, torch.float64, requires_grad=True)
    index, _ = kept(z, 3)
    index, count = torch.arange(3, dtype=torch.int32).expand_as(index).contiguous(), torch.full((1, 2, 4), 3).int()
    assert torch.autograd.gradcheck(lambda *x: sparse_attention(*x, index, count, 0.3), inputs)
    blocks, counts = torch.tensor([[[[0, 2], [1, 2]]]]).int().expand(1, 2, 2, 2).contiguous(), torch.full((1, 2, 2), 2)
    assert torch.autograd.gradcheck(lambda *x: block_sparse_attention(*x, blocks, counts.int(), (2, 2)), inputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_operators_keep_the_rules_of_torch():
    z = {"B": 1, "H": 2, "G": 1, "N": 5, "M": 6, "D": 16, "R": 4, "seed": 0}
    inputs, operands, mask = qkv(z, requires_grad=True), estimates(z), padding(z)
    index, count = kept(z)
    blocks, counts = kept(z | {"N": 3, "M": 2})
    plain = qkv(z)
    ops = torch.ops.gnomon
    torch.library.opcheck(ops.sparse_attention.default, (*inputs, index, count, 0.3))
    torch.library.opcheck(ops.block_sparse_attention.default, (*inputs, blocks, counts, [2, 3], True, mask, 0.3))
    torch.library.opcheck(ops.select_top_k.default, (*operands, mask, True, 0.4))
    torch.library.opcheck(ops.select_blocks.default, (*operands, mask, True, 0.4, [2, 3]))
    torch.library.opcheck(ops.detect_attend.default, (*operands, *plain, mask, True, 0.4, 0.3))
    out, lse = sparse_attention(*plain, index, count)
    torch.library.opcheck(ops.sparse_attention_backward.default, (out, lse * 0, *plain, out, lse, index, count, 0.3))


def test_without_a_compiler_the_definition_runs_after_one_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    kernels = _native.Kernels("detected attention", native.KERNELS.source, {})
    with pytest.warns(RuntimeWarning, match="detected attention runs its slower reference") as seen:
        assert [kernels.get(), kernels.get()] == [None, None]
    assert len(seen) == 1


def test_a_query_that_keeps_nothing_gets_zeros():
    z = {"B": 1, "H": 1, "G": 1, "N": 2, "M": 3, "D": 16, "R": 1, "seed": 0}
    inputs = qkv(z, requires_grad=True)
    index, count = torch.tensor([[[[0, 1], [-1, -1]]]]).int(), torch.tensor([[[2, 0]]]).int()
    out, lse = sparse_attention(*inputs, index, count)
    assert not out[0, 0, 1].any()
    assert lse[0, 0, 1] == -math.inf
    dq, dk, dv = torch.autograd.grad(out.sum(), inputs)
    assert not dq[0, 0, 1].any()
    assert not dk[0, 0, 2].any()
    assert not dv[0, 0, 2].any()


def test_arguments_that_do_not_fit_are_refused_by_name():
    z = {"B": 1, "H": 2, "G": 2, "N": 4, "M": 4, "D": 8, "R": 1, "seed": 0}
    q, k, v = qkv(z)
    index, count = kept(z)
    for wrong, match in (
        ((q[0], k, v, index, count), "q must have four axes"),
        ((q, k.double(), v, index, count), "k must be torch.float32"),
        ((q.int(), k, v, index, count), "q must be float32, bfloat16"),
        ((q, k, v[:, :, :3], index, count), "v must have the shape of k"),
        ((q, k[..., :4], v[..., :4], index, count), "k must share batch and head size"),
        ((q[:, :, :0], k, v, index, count), "q and k must hold at least one token; got N = 0"),
        ((q[:, :1], k, v, index[:, :1], count[:, :1]), "k must have a number of heads that divides"),
        ((q, k, v, index.long(), count), "index must be int32"),
        ((q, k, v, index[:, :, :3], count), "index must be"),
        ((q, k, v, index, count[:, :, :3]), "count must be"),
    ):
        with pytest.raises(ValueError, match=match):
            sparse_attention(*wrong)
    with pytest.raises(ValueError, match="block must be two positive sizes"):
        block_sparse_attention(q, k, v, index, count, (0, 4))
    with pytest.raises(ValueError, match="key_mask must be bool"):
        block_sparse_attention(q, k, v, index, count, (1, 1), key_mask=torch.ones(1, 4))
    with pytest.raises(ValueError, match="q_est and k_est must be estimates for q and k"):
        detect_attend(*estimates(z | {"N": 3}), q, k, v, 0.5)
