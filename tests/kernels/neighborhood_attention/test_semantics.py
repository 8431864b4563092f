"""What neighborhood attention computes, whoever computes it: random problems against loops, and known limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from gnomon.kernels.neighborhood_attention import Case, Problem, na1d, na2d, na3d, neighborhood_attention_generic
from gnomon.kernels.neighborhood_attention.backends import BACKENDS

from .oracle import Call, attend, random_call, seen_along_axis

PLAIN = Case(Problem.of((8,), 3), 1, 1, 1, 8, 8, torch.float32, "cpu")
OURS = "cpu" if BACKENDS["cpu"].why_not(PLAIN) is None else "reference"
# float32: the card's bound. 16 bits: a rounding of the result and one of what the backward pass reads
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def check_against_loops(seed, backend):
    call = random_call(seed)
    if call.dtype == torch.float64:
        backend = "reference"
    tensors = call.tensors(seed)
    wanted = attend(call, tensors)
    leaves = [x.clone().requires_grad_() for x in (tensors.q, tensors.k, tensors.v, tensors.rpb) if x is not None]
    rpb = leaves[3] if call.has_bias else None
    out, lse = neighborhood_attention_generic(
        *leaves[:3], **call.window, scale=call.scale, rpb=rpb, return_lse=True, backend=backend
    )
    gradients = torch.autograd.grad((out, lse), leaves, (tensors.grad_out, tensors.grad_lse))
    assert lse.dtype == torch.promote_types(call.dtype, torch.float32)
    for name, got, correct in zip(
        ["out", "lse", "dq", "dk", "dv", "drpb"],
        [out.detach(), lse.detach(), *gradients],
        [wanted.out, wanted.lse, *wanted.gradients],
        strict=False,
    ):
        bound = TOLERANCE[call.dtype] * max(1.0, float(np.abs(correct).max()))
        off = float((got.double() - torch.from_numpy(correct)).abs().max())
        assert off <= bound, f"seed {seed}: {name} is off by {off:.3g}, more than {bound:.3g}; {call}"


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_problems_agree_with_loops_forward_and_backward(first):
    for seed in range(first, first + 50):
        check_against_loops(seed, OURS)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 100))
def test_two_thousand_random_problems_agree_with_loops(first):
    for seed in range(first, first + 100):
        check_against_loops(seed, OURS)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_other_backends_agree_with_loops_as_well(backend):
    for seed in range(300, 330):
        check_against_loops(seed, backend)


def qkv(*space, heads=2, heads_kv=None, head_dim=8, dtype=torch.float32, batch=2):
    q = torch.randn(batch, *space, heads, head_dim, dtype=dtype)
    k, v = torch.randn(2, batch, *space, heads_kv or heads, head_dim, dtype=dtype)
    return q, k, v


def dense(q, k, v, is_causal=False):
    """torch's own attention over all tokens of the grid."""
    rows = [x.flatten(1, -3).transpose(1, 2) for x in (q, k, v)]
    return scaled_dot_product_attention(*rows, is_causal=is_causal).transpose(1, 2).reshape(q.shape)


@pytest.mark.parametrize("space", [(11,), (5, 4), (3, 4, 2)])
def test_a_window_over_the_whole_grid_is_self_attention(space):
    q, k, v = qkv(*space)
    torch.testing.assert_close(neighborhood_attention_generic(q, k, v, space, backend=OURS), dense(q, k, v))


def test_a_causal_window_over_the_whole_sequence_is_causal_attention():
    q, k, v = qkv(13)
    torch.testing.assert_close(na1d(q, k, v, 13, is_causal=True, backend=OURS), dense(q, k, v, is_causal=True))


@pytest.mark.parametrize("window", [(3, 2), (2, 4)])
def test_windows_as_far_apart_as_they_are_wide_are_separate_blocks(window):
    blocks = (2, 3)
    q, k, v = qkv(*(w * b for w, b in zip(window, blocks, strict=True)))
    out = na2d(q, k, v, window, stride=window, backend=OURS)
    for i in range(blocks[0]):
        for j in range(blocks[1]):
            at = (slice(None), slice(i * window[0], (i + 1) * window[0]), slice(j * window[1], (j + 1) * window[1]))
            torch.testing.assert_close(out[at], dense(q[at], k[at], v[at]))


@pytest.mark.parametrize("is_causal", [False, (True, False)])
def test_dilation_is_a_problem_of_its_own_on_each_sub_grid(is_causal):
    q, k, v = qkv(11, 7)  # 3 does not divide 11, 2 does not divide 7
    out = na2d(q, k, v, (3, 3), stride=(2, 1), dilation=(3, 2), is_causal=is_causal, backend=OURS)
    for i in range(3):
        for j in range(2):
            at = (slice(None), slice(i, None, 3), slice(j, None, 2))
            alone = na2d(q[at], k[at], v[at], 3, stride=(2, 1), is_causal=is_causal, backend=OURS)
            torch.testing.assert_close(out[at], alone)


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_window_of_one_gives_the_query_its_own_value(is_causal):
    q, k, v = qkv(3, 4, 5)
    torch.testing.assert_close(na3d(q, k, v, 1, is_causal=is_causal, backend=OURS), v)


def test_constant_values_stay_what_they_are():
    q, k, _ = qkv(9, 6)
    v = torch.full_like(k, 2.5)
    out = na2d(q, k, v, (4, 3), stride=(3, 1), dilation=(2, 1), is_causal=(True, False), backend=OURS)
    torch.testing.assert_close(out, v)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30)
def test_every_bidirectional_query_sees_exactly_the_window_and_a_causal_one_what_there_is(seed):
    call = random_call(seed)
    q = torch.zeros(1, *call.space, 1, 1)
    _, lse = neighborhood_attention_generic(q, q, q, **call.window, return_lse=True, backend=OURS)
    counts = lse.exp().round().to(torch.int64)[0, ..., 0].numpy()  # of equal scores, all 0
    wanted = np.ones(call.space, dtype=np.int64)
    rows = zip(call.space, call.kernel_size, call.stride, call.dilation, call.is_causal, strict=True)
    for axis, (n, w, s, d, causal) in enumerate(rows):
        along = [len(seen_along_axis(i, n, w, s, d, True)) if causal else w for i in range(n)]
        wanted *= np.expand_dims(along, tuple(a for a in range(len(call.space)) if a != axis))
    np.testing.assert_array_equal(counts, wanted)


@given(n=st.integers(1, 30), data=st.data())
def test_windows_and_masks_of_an_axis_are_those_of_the_loops(n, data):
    d = data.draw(st.integers(1, n))
    w = data.draw(st.integers(1, n // d))
    s = data.draw(st.integers(1, w))
    causal = data.draw(st.booleans())
    mask = Problem.of((n,), w, s, d, causal).mask()
    assert [list(np.flatnonzero(row)) for row in mask] == [seen_along_axis(i, n, w, s, d, causal) for i in range(n)]


def test_every_query_sees_itself():
    for seed in range(200):
        call = random_call(seed)
        for row in zip(call.space, call.kernel_size, call.stride, call.dilation, call.is_causal, strict=True):
            assert all(i in seen_along_axis(i, *row) for i in range(row[0]))


def test_batches_and_heads_do_not_meet():
    q, k, v = qkv(6, 5, heads=4, batch=3)
    batch, head = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    out = na2d(q, k, v, 3, stride=2, backend=OURS)
    shuffled = na2d(*(x[batch][..., head, :] for x in (q, k, v)), 3, stride=2, backend=OURS)
    torch.testing.assert_close(shuffled, out[batch][..., head, :], rtol=0, atol=0)


@pytest.mark.parametrize("heads_kv", [1, 2])
def test_grouped_heads_are_repeated_heads_and_their_gradients_add_up(heads_kv):
    q, k, v = (x.requires_grad_() for x in qkv(7, 6, heads=4, heads_kv=heads_kv))
    out = na2d(q, k, v, 3, dilation=2, backend=OURS)
    repeated = na2d(q, *(x.repeat_interleave(4 // heads_kv, -2) for x in (k, v)), 3, dilation=2, backend=OURS)
    torch.testing.assert_close(out, repeated)
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, (q, k, v), grad), torch.autograd.grad(repeated, (q, k, v), grad)
    )


def with_more_keys(q, k, v, keys, values, window):
    """(out, lse) by one softmax over the grid's keys under the mask and over all additional ones."""
    tokens, more, repeats = math.prod(q.shape[1:-2]), keys.shape[1], q.shape[-2] // k.shape[-2]
    mask = torch.from_numpy(Problem.of(q.shape[1:-2], **window).mask())
    visible = torch.cat([mask, torch.ones(tokens, more, dtype=torch.bool)], 1)
    k_all, v_all = (
        torch.cat([x.flatten(1, -3), extra], 1).repeat_interleave(repeats, -2) for x, extra in ((k, keys), (v, values))
    )
    score = torch.einsum("bihd,bjhd->bhij", q.flatten(1, -3), k_all) * q.shape[-1] ** -0.5
    score = score.masked_fill(~visible, -torch.inf)
    out = torch.einsum("bhij,bjhd->bihd", score.softmax(-1), v_all)
    return out.reshape(q.shape), score.logsumexp(-1).transpose(1, 2).reshape(q.shape[:-1])


@pytest.mark.parametrize("heads_kv", [4, 2, 1])
@pytest.mark.parametrize("more", [1, 9, 30])
def test_additional_keys_share_the_softmax_with_the_window_and_train(heads_kv, more):
    q, k, v = (x.requires_grad_() for x in qkv(6, 5, heads=4, heads_kv=heads_kv))
    keys, values = (x.requires_grad_() for x in torch.randn(2, 2, more, heads_kv, 8))
    window = {"kernel_size": (3, 4), "stride": (2, 1), "is_causal": (True, False)}
    result = na2d(q, k, v, **window, additional_keys=keys, additional_values=values, return_lse=True, backend=OURS)
    wanted = with_more_keys(q, k, v, keys, values, window)
    torch.testing.assert_close(result, wanted)
    grads = tuple(torch.randn_like(x) for x in result)
    leaves = (q, k, v, keys, values)
    wanted_grads = torch.autograd.grad(wanted, leaves, grads)
    torch.testing.assert_close(torch.autograd.grad(result, leaves, grads), wanted_grads, rtol=1e-4, atol=1e-5)


def test_no_additional_keys_are_as_if_there_were_none():
    q, k, v = qkv(9)
    nothing = torch.zeros(2, 0, 2, 8)
    out = na1d(q, k, v, 3, additional_keys=nothing, additional_values=nothing, backend=OURS)
    torch.testing.assert_close(out, na1d(q, k, v, 3, backend=OURS), rtol=0, atol=0)


def test_a_scale_of_zero_is_the_mean_over_the_window():
    q, k, v = qkv(8)
    out = na1d(q, k, v, 3, scale=0.0, backend=OURS)
    torch.testing.assert_close(out[:, 4], v[:, 3:6].mean(1))
    torch.testing.assert_close(out[:, 0], v[:, 0:3].mean(1))  # shifted at the edge, not cut


def test_a_bias_that_is_large_at_one_offset_moves_the_values_by_it():
    q, k, v = qkv(8, 8)
    table = torch.zeros(2, 5, 5)
    table[:, 2 + 1, 2 - 1] = 1e4  # one down, one to the left
    out = na2d(q, k, v, 3, rpb=table, backend=OURS)
    torch.testing.assert_close(out[:, 1:7, 1:7], v[:, 2:8, 0:6])


def test_the_gradient_of_the_reference_is_the_slope_of_its_values():
    q, k, v = (x.requires_grad_() for x in qkv(4, 5, heads=2, heads_kv=1, head_dim=3, batch=1, dtype=torch.float64))
    rpb = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)

    def call(q, k, v, rpb):
        return na2d(q, k, v, (3, 2), dilation=(1, 2), is_causal=(True, False), rpb=rpb, return_lse=True)

    assert torch.autograd.gradcheck(call, (q, k, v, rpb))


def test_the_same_call_gives_the_same_bits():
    call = Call((9, 8), (5, 3), (2, 1), (1, 2), (False, True), 2, 4, 2, 32, 0.2, True, torch.float32)
    tensors = call.tensors()
    results = []
    for _ in range(2):
        leaves = [x.clone().requires_grad_() for x in (tensors.q, tensors.k, tensors.v, tensors.rpb)]
        out, lse = na2d(*leaves[:3], **call.window, scale=call.scale, rpb=leaves[3], return_lse=True, backend=OURS)
        results.append([out, lse, *torch.autograd.grad((out, lse), leaves, (tensors.grad_out, tensors.grad_lse))])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
