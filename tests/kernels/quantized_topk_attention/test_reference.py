"""The definition against Python loops, a table of products and its limits."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from gnomon.kernels.quantized_topk_attention import quantized_topk_attention, reference


def qkv(*shape, keys=None):
    b, h, n, d = shape
    return (torch.randn(b, h, m, d, dtype=torch.float64) for m in (n, keys or n, keys or n))


def test_integer_scores_are_sums_of_a_table_of_256_products():
    operands = range(-8, 8)
    table = {(a, b): a * b for a, b in itertools.product(operands, operands)}
    q = torch.tensor(list(operands)).reshape(1, 1, 16, 1)
    scores = reference.integer_scores(q, q)[0, 0]
    assert len(table) == 256
    for (i, a), (j, b) in itertools.product(enumerate(operands), enumerate(operands)):
        assert scores[i, j] == table[a, b]
    x, y = torch.randint(-7, 8, (2, 1, 1, 5, 19))
    looked_up = [[sum(table[int(a), int(b)] for a, b in zip(r, s, strict=True)) for s in y[0, 0]] for r in x[0, 0]]
    assert reference.integer_scores(x, y)[0, 0].tolist() == looked_up


@given(bits=st.integers(1, 16), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e20]), seed=st.integers(0, 99))
def test_quantized_values_stay_within_their_bits_and_reach_the_last_one(bits, scale, seed):
    x = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(seed)) * scale
    largest = max(2 ** (bits - 1) - 1, 1)
    found = reference.quantize(x, bits)
    assert found.abs().amax((-1, -2)).eq(largest).all()
    exact = x.double() * largest / x.double().abs().amax((-1, -2), keepdim=True)
    if bits > 1:
        assert (found - exact).abs().max() <= 0.5 + 2**-8  # half a step, and float32's rounding of 15-bit products


def test_zeros_are_quantized_to_zeros_and_attend_evenly():
    assert reference.quantize(torch.zeros(1, 1, 3, 4), 4).eq(0).all()
    v = torch.randn(1, 1, 6, 4)
    out = quantized_topk_attention(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 6, 4), v, 3)
    torch.testing.assert_close(out, v[:, :, :3].mean(2, keepdim=True).expand(1, 1, 2, 4))  # ties: the lower index


def test_one_bit_is_the_sign():
    assert reference.quantize(torch.tensor([[[[-3.0, 0.0, 0.1]]]]), 1).tolist() == [[[[-1, 0, 1]]]]


def test_the_choice_is_that_of_loops():
    q, k, v = (x.float() for x in qkv(1, 2, 9, 6, keys=13))
    mask = torch.rand(1, 2, 9, 13) > 0.5
    kept = reference.quantized_topk_attention(q, k, v, mask, None, 4, 4, (1, 1), True, 0.4).kept
    quantized = [reference.quantize(x, 4, c) for x, c in ((q, None), (k, mask.any(2).any(1)[:, None].expand(1, 2, 13)))]
    for h, i in itertools.product(range(2), range(9)):
        seen = [j for j in range(13) if mask[0, h, i, j] and j <= i]
        score = {j: int((quantized[0][0, h, i] * quantized[1][0, h, j]).sum()) for j in seen}
        wanted = sorted(sorted(seen, key=lambda j: (-score[j], j))[:4])
        assert kept[0, h, i].tolist() == wanted + [-1] * (4 - len(wanted))


@given(bits=st.integers(1, 16), causal=st.booleans(), extra=st.integers(0, 3))
def test_enough_keys_are_dense_attention(bits, causal, extra):
    q, k, v = qkv(2, 3, 11, 8)
    out = quantized_topk_attention(q, k, v, 11 + extra, bits, is_causal=causal)
    torch.testing.assert_close(out, scaled_dot_product_attention(q, k, v, is_causal=causal), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_key_gives_its_value(dtype):
    q, k, v = (x.to(dtype) for x in qkv(2, 2, 17, 8, keys=29))
    best = reference.integer_scores(reference.quantize(q, 4), reference.quantize(k, 4)).max(-1)
    out = quantized_topk_attention(q, k, v, 1)
    for b, h, i in itertools.product(range(2), range(2), range(17)):
        first = int(
            (
                reference.integer_scores(*(reference.quantize(x, 4) for x in (q, k)))[b, h, i] == best.values[b, h, i]
            ).nonzero()[0]
        )
        assert torch.equal(out[b, h, i], v[b, h, first])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sixteen_bits_choose_the_exact_keys(dtype):
    q, k, v = (x.to(dtype) for x in qkv(2, 2, 40, 16, keys=64))
    _, stats = quantized_topk_attention(q, k, v, 8, 16, return_stats=True)
    assert stats.recall > 0.999
    assert stats.kept_mass == pytest.approx(stats.best_mass, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_keys_are_never_chosen_and_few_are_all_used(dtype):
    q, k, v = (x.to(dtype) for x in qkv(2, 2, 12, 8, keys=20))
    mask = torch.rand(2, 1, 12, 20) > 0.7
    mask[0, 0, 3] = False
    mask[0, 0, 4] = False
    mask[0, 0, 4, 19] = True
    out, stats = quantized_topk_attention(q, k, v, 5, mask=mask, return_stats=True)
    assert stats.empty_rows.nonzero().tolist() == [
        [b, h, i] for b, h, i in itertools.product(range(2), range(2), range(12)) if not mask[b, 0, i].any()
    ]
    assert out[0, :, 3].eq(0).all()
    assert torch.equal(out[0, :, 4], v[0, :, 19])
    kept = torch.ops.gnomon.quantized_topk_attention(q, k, v, mask, None, 5, 4, [1, 1], False, 0.3)[2]
    for b, h, i in itertools.product(range(2), range(2), range(12)):
        chosen = [j for j in kept[b, h, i].tolist() if j >= 0]
        assert all(mask[b, 0, i, j] for j in chosen)
        assert len(chosen) == min(5, int(mask[b, 0, i].sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hidden_keys_do_not_set_the_scale(dtype):
    q, k, v = (x.to(dtype) for x in qkv(1, 2, 10, 8, keys=16))
    mask = torch.ones(1, 1, 1, 16, dtype=torch.bool)
    mask[..., 12:] = False
    wild = torch.cat([k[:, :, :12], k[:, :, 12:] * 1e6], 2)
    cut = quantized_topk_attention(q, k[:, :, :12], v[:, :, :12], 4)
    torch.testing.assert_close(quantized_topk_attention(q, wild, v, 4, mask=mask), cut)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_of_keys_does_not_matter(dtype):
    q, k, v = (x.to(dtype) for x in qkv(1, 2, 10, 16, keys=32))
    order = torch.randperm(32)
    a, b = (quantized_topk_attention(q, x, y, 6, 16) for x, y in ((k, v), (k[:, :, order], v[:, :, order])))
    torch.testing.assert_close(a, b)  # at 16 bits no two scores are equal here; ties go by index


@given(power=st.integers(-20, 20), factor=st.floats(0.01, 100))
def test_scaling_the_queries_leaves_the_choice(power, factor):
    q, k, v = qkv(1, 2, 10, 16, keys=32)
    kept = [
        torch.ops.gnomon.quantized_topk_attention(x, k, v, None, None, 6, 4, [1, 1], False, 0.25)[2]
        for x in (q, q * 2.0**power, q * factor)
    ]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mass_grows_with_k_and_recall_does_so_on_the_whole(dtype, causal):
    q, k, v = (x.to(dtype) for x in qkv(2, 2, 40, 16, keys=40))
    found = [
        quantized_topk_attention(q, k, v, n, is_causal=causal, return_stats=True)[1] for n in (1, 2, 5, 10, 20, 40)
    ]
    assert all(a.kept_mass <= b.kept_mass + 1e-6 for a, b in itertools.pairwise(found))
    assert all(a.recall <= b.recall for a, b in itertools.pairwise(found))
    assert all(one.kept_mass <= one.best_mass + 1e-6 for one in found)
    assert found[-1].recall == 1
    assert found[-1].kept_mass == pytest.approx(1, abs=1e-5)


def test_statistics_are_those_of_loops():
    q, k, v = qkv(1, 1, 6, 4, keys=9)
    mask = torch.rand(6, 9) > 0.3
    mask[2] = False
    _, stats = quantized_topk_attention(q, k, v, 3, 2, mask=mask, is_causal=False, return_stats=True)
    kept = torch.ops.gnomon.quantized_topk_attention(q, k, v, mask[None, None], None, 3, 2, [1, 1], False, 0.5)[2][0, 0]
    hits = chosen = 0
    masses, bests = [], []
    for i in range(6):
        seen = [j for j in range(9) if mask[i, j]]
        if not seen:
            continue
        scores = {j: float(q[0, 0, i] @ k[0, 0, j]) * 0.5 for j in seen}
        weight = dict(
            zip(seen, torch.tensor(list(scores.values()), dtype=torch.float64).softmax(0).tolist(), strict=True)
        )
        mine = {j for j in kept[i].tolist() if j >= 0}
        best = set(sorted(seen, key=lambda j: -scores[j])[: len(mine)])
        hits, chosen = hits + len(mine & best), chosen + len(mine)
        masses.append(sum(weight[j] for j in mine))
        bests.append(sum(weight[j] for j in best))
    assert stats.recall == pytest.approx(hits / chosen)
    assert stats.kept_mass == pytest.approx(sum(masses) / len(masses))
    assert stats.best_mass == pytest.approx(sum(bests) / len(bests))


@given(bq=st.integers(1, 5), bk=st.integers(1, 5), topk=st.integers(1, 12))
def test_blocks_are_chosen_by_their_best_score(bq, bk, topk):
    q, k, v = qkv(1, 1, 7, 4, keys=11)
    mask = torch.rand(1, 1, 7, 11) > 0.4
    found = reference.quantized_topk_attention(q, k, v, mask, None, topk, 8, (bq, bk), False, 0.5)
    counted = mask.any(2).any(1)[:, None]
    scores = reference.integer_scores(reference.quantize(q, 8), reference.quantize(k, 8, counted))[0, 0]
    for tile in range(-(-7 // bq)):
        best = {}
        for block in range(-(-11 // bk)):
            pairs = itertools.product(
                range(tile * bq, min(7, tile * bq + bq)), range(block * bk, min(11, block * bk + bk))
            )
            inside = [float(scores[i, j]) for i, j in pairs if mask[0, 0, i, j]]
            if inside:
                best[block] = max(inside)
        wanted = sorted(sorted(best, key=lambda b: (-best[b], b))[: -(-topk // bk)])
        assert [b for b in found.kept[0, 0, tile].tolist() if b >= 0] == wanted
