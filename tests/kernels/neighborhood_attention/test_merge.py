import pytest
import torch

from gnomon.kernels.neighborhood_attention import merge_attentions


def attention(q, k, v):
    """[.., H, D] rows of queries to all of k and v [M, H, D], with the logsumexp, in torch's own words."""
    score = torch.einsum("nhd,mhd->nhm", q, k)
    return torch.einsum("nhm,mhd->nhd", score.softmax(-1), v), score.logsumexp(-1)


def parts(sizes, dtype=torch.float64):
    q = torch.randn(5, 2, 4, dtype=dtype, requires_grad=True)
    keys = [torch.randn(m, 2, 4, dtype=dtype, requires_grad=True) for m in sizes]
    values = [torch.randn(m, 2, 3, dtype=dtype, requires_grad=True) for m in sizes]
    return q, keys, values


@pytest.mark.parametrize("sizes", [(3,), (3, 4), (1, 7, 2, 5)])
def test_merged_attentions_are_the_attention_over_all_keys_and_so_are_their_gradients(sizes):
    q, keys, values = parts(sizes)
    whole = attention(q, torch.cat(keys), torch.cat(values))
    merged = merge_attentions(*zip(*[attention(q, k, v) for k, v in zip(keys, values, strict=True)], strict=True))
    torch.testing.assert_close(merged, whole)
    grads = [torch.randn_like(x) for x in whole]
    leaves = [q, *keys, *values]
    wanted = torch.autograd.grad(whole, leaves, grads)
    torch.testing.assert_close(torch.autograd.grad(merged, leaves, grads), wanted)


def test_two_attentions_merge_by_the_sigmoid_of_their_difference():
    o1, o2 = torch.randn(2, 6, 2, 3, dtype=torch.float64)
    l1, l2 = torch.randn(2, 6, 2, dtype=torch.float64) * 3
    out, lse = merge_attentions([o1, o2], [l1, l2])
    torch.testing.assert_close(out, o1 - torch.sigmoid(l2 - l1)[..., None] * (o1 - o2))
    torch.testing.assert_close(lse, l1 - torch.nn.functional.logsigmoid(l1 - l2))


@pytest.mark.parametrize("far", [200.0, 1e30])
def test_an_attention_that_holds_nearly_all_of_the_softmax_is_the_result(far):
    o1, o2 = torch.randn(2, 6, 2, 3)
    l1 = torch.zeros(6, 2, requires_grad=True)
    out, lse = merge_attentions([o1, o2], [l1, l1.detach() + far])
    torch.testing.assert_close(out, o2, rtol=0, atol=0)
    torch.testing.assert_close(lse, torch.full((6, 2), far))
    (out.sum() + lse.sum()).backward()
    torch.testing.assert_close(l1.grad, torch.zeros(6, 2))


def test_an_attention_that_saw_no_key_counts_for_nothing():
    o1, o2 = torch.randn(2, 6, 2, 3)
    nothing = torch.full((6, 2), -torch.inf, requires_grad=True)
    out, lse = merge_attentions([o1, o2], [nothing, torch.zeros(6, 2)])
    torch.testing.assert_close(out, o2)
    assert not lse.any()
    empty, lse = merge_attentions([o1, o2], [nothing, nothing])
    assert not empty.any()
    assert lse.isneginf().all()
    (out.sum() + empty.sum()).backward()
    assert not nothing.grad.any()


def test_sixteen_bit_outputs_are_merged_in_float32():
    o1, o2 = torch.randn(2, 64, 2, 8)
    l1, l2 = torch.randn(2, 64, 2)
    out, lse = merge_attentions([o1.bfloat16(), o2.bfloat16()], [l1, l2])
    wanted, _ = merge_attentions([o1.bfloat16().float(), o2.bfloat16().float()], [l1, l2])
    assert out.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
    torch.testing.assert_close(out, wanted.bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("outputs", "lses", "message"),
    [
        ([], [], "outputs and lse_tensors need one entry per attention, at least one; got 0 and 0"),
        ([torch.zeros(4, 2, 3)], [], "got 1 and 0"),
        ([torch.zeros(4, 2, 3), torch.zeros(4, 2, 4)], [torch.zeros(4, 2)] * 2, r"outputs\[1\] is \[4, 2, 4\]"),
        (
            [torch.zeros(4, 2, 3), torch.zeros(4, 2, 3).half()],
            [torch.zeros(4, 2)] * 2,
            r"outputs\[1\] .* torch.float16",
        ),
        ([torch.zeros(4, 2, 3)], [torch.zeros(2, 4)], r"lse_tensors\[0\] is \[2, 4\]; .* is \[4, 2\]"),
        ([torch.zeros(4, 2, 3)], [torch.zeros(4, 2, dtype=torch.int64)], r"lse_tensors\[0\] is torch.int64"),
    ],
)
def test_what_cannot_be_merged_is_named(outputs, lses, message):
    with pytest.raises(ValueError, match=message):
        merge_attentions(outputs, lses)
