import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.kernels.detected_attention import reference, select, select_blocks, select_top_k
from gnomon.kernels.detected_attention.select import Kept

from .problems import estimates, padding, problems


def rows(kept):
    """The kept keys of every row, as lists."""
    return [
        index[:count].tolist() for index, count in zip(kept.indices.flatten(0, 2), kept.counts.flatten(), strict=True)
    ]


@given(problems(), st.floats(0.01, 1), st.booleans(), st.booleans())
def test_every_query_keeps_the_same_number_of_the_best_keys_that_it_may_see(z, retention, is_causal, padded):
    q, k = estimates(z, largest=2)
    mask = padding(z, padded)
    kept = select_top_k(q, k, retention, is_causal, mask)
    scores = (q.double() @ k.double().repeat_interleave(z["H"] // z["G"], 1).mT).flatten(0, 2)
    for row, keys in enumerate(rows(kept)):
        b, n = row // (z["H"] * z["N"]), row % z["N"]
        exist = [j for j in range(z["M"]) if mask is None or mask[b, j]]
        seen = [j for j in exist if not is_causal or j <= n + z["M"] - z["N"]]
        wanted = min(len(seen), math.ceil(round(retention * len(exist), 9)))
        best = sorted(sorted(seen, key=lambda j: (-scores[row, j], j))[:wanted])
        assert keys == best
    assert (kept.indices[torch.arange(kept.indices.shape[-1]) >= kept.counts[..., None]] == -1).all()


@pytest.mark.parametrize("largest", [1, 7, 127])
@pytest.mark.parametrize("is_causal", [False, True])
def test_long_rows_keep_exactly_what_a_stable_sort_keeps(largest, is_causal):
    z = {"B": 1, "H": 2, "G": 1, "N": 40, "M": 3001, "R": 16, "seed": largest}
    q, k = estimates(z, largest)
    mask = torch.rand(1, z["M"]) < 0.8
    for retention in (0.001, 0.1, 0.6):
        found = select_top_k(q, k, retention, is_causal, mask)
        wanted = select.top_k_of_integers(q, k, mask, is_causal, retention)
        assert torch.equal(found.indices, wanted.indices)
        assert torch.equal(found.counts, wanted.counts)


def test_a_sample_that_misses_the_strong_keys_does_not_lose_them():
    k = torch.zeros(1, 1, 4096, 1, dtype=torch.int8)
    k[0, 0, ::16] = 1  # exactly the keys that a sample of every sixteenth sees
    q = torch.tensor([1, -1], dtype=torch.int8).view(1, 1, 2, 1)
    kept = select_top_k(q, k, 300 / 4096)
    wanted = select.top_k_of_integers(q, k, None, False, 300 / 4096)
    assert torch.equal(kept.indices, wanted.indices)


@given(problems(), st.floats(0.01, 1), st.booleans(), st.booleans(), st.integers(1, 40), st.integers(1, 40))
def test_blocks_are_kept_by_their_largest_visible_product(z, retention, is_causal, padded, down, right):
    q, k = estimates(z, largest=3)
    mask = padding(z, padded)
    kept = select_blocks(q, k, retention, (down, right), is_causal, mask)
    scores = q.double() @ k.double().repeat_interleave(z["H"] // z["G"], 1).mT
    seen = reference.visible(z["N"], z["M"], is_causal, mask, q.device).expand(z["B"], z["H"], -1, -1)
    tiles, parts = -(-z["N"] // down), -(-z["M"] // right)
    for row, blocks in enumerate(rows(kept)):
        b, h, t = row // (z["H"] * tiles), row // tiles % z["H"], row % tiles
        best = {}
        for u in range(parts):
            part = (b, h, slice(t * down, (t + 1) * down), slice(u * right, (u + 1) * right))
            if seen[part].any():
                best[u] = float(scores[part][seen[part]].max())
        exist = parts if mask is None else len({j // right for j in mask[b].nonzero().flatten().tolist()})
        wanted = min(len(best), math.ceil(round(retention * exist, 9)))
        assert blocks == sorted(sorted(best, key=lambda u: (-best[u], u))[:wanted])


@given(problems(), st.integers(-9, 9), st.booleans())
def test_a_threshold_keeps_what_reaches_it_and_the_best_where_nothing_does(z, threshold, is_causal):
    q, k = estimates(z, largest=2)
    scores = q.float() @ k.float().repeat_interleave(z["H"] // z["G"], 1).mT
    seen = reference.visible(z["N"], z["M"], is_causal, None, q.device)
    kept = select.above(scores, threshold, seen)
    for keys, row, visible in zip(rows(kept), scores.flatten(0, 2), seen.expand_as(scores).flatten(0, 2), strict=True):
        wanted = [j for j in range(z["M"]) if visible[j] and row[j] >= threshold]
        if not wanted and visible.any():
            wanted = [max(visible.nonzero().flatten().tolist(), key=lambda j: (row[j], -j))]
        assert keys == wanted


def test_a_threshold_reports_how_much_it_kept():
    seen = torch.ones(4, 4, dtype=torch.bool).tril()
    kept = select.above(torch.tensor([[[[5, 0, 0, 0], [5, 5, 0, 0], [5, 0, 0, 0], [0, 0, 0, 9.0]]]]), 4.0, seen)
    share = select.retention_of(kept, seen)
    assert share == pytest.approx(((1 + 1 + 1 / 3 + 1 / 4) / 4, 1 / 4, 1 / 3, 1))


def test_the_mean_of_a_block_is_over_what_may_be_seen():
    scores = torch.tensor([[[[1.0, 100.0], [2.0, 3.0]]]])
    found, any_seen = select.pool(scores, (2, 2), torch.ones(2, 2, dtype=torch.bool).tril(), "mean")
    assert found.item() == 2.0
    assert any_seen.item()


def test_mass_is_the_share_of_the_dense_softmax_that_is_kept():
    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 1, 5, 4)
    kept = torch.rand(1, 2, 3, 5) < 0.5
    seen = torch.ones(1, 1, 3, 5, dtype=torch.bool)
    dense = torch.softmax(q @ k.mT * 0.5, -1)
    torch.testing.assert_close(select.mass(q, k, kept, seen, 0.5), (dense * kept).sum(-1))


@pytest.mark.parametrize(
    ("retention", "keys", "wanted"), [(0.07, 100, 7), (0.1, 30, 3), (0.1, 31, 4), (1, 5, 5), (0.001, 9, 1)]
)
def test_the_number_kept_is_the_ceiling_and_not_one_more_for_a_last_bit(retention, keys, wanted):
    assert select.kept_of(retention, keys) == wanted


@pytest.mark.parametrize("retention", [0, -0.1, 1.5, math.nan])
def test_a_retention_outside_0_to_1_is_refused(retention):
    q = torch.zeros(1, 1, 4, 2, dtype=torch.int8)
    for call in (
        lambda: select_top_k(q, q, retention),
        lambda: select_blocks(q, q, retention, (2, 2)),
        lambda: select.top_k(torch.zeros(1, 1, 4, 4), retention, torch.ones(4, 4, dtype=torch.bool)),
    ):
        with pytest.raises(ValueError, match="retention must be above 0"):
            call()


def test_estimates_that_do_not_fit_are_refused_by_name():
    q = torch.zeros(1, 2, 4, 3, dtype=torch.int8)
    for wrong, match in (
        ((q.float(), q), "q_est must be int8"),
        ((q, q[..., :2]), "k_est must share batch and rank"),
        ((q, q.repeat(1, 2, 1, 1)), "k_est must share batch and rank"),
        ((q[:, :, :0], q), "q_est must have tokens"),
        ((q[..., :0], q[..., :0]), "q_est must have tokens, and a rank"),
    ):
        with pytest.raises(ValueError, match=match):
            select_top_k(*wrong, 0.5)
    with pytest.raises(ValueError, match="key_mask must be bool"):
        select_top_k(q, q, 0.5, key_mask=torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="block must be two positive sizes"):
        select_blocks(q, q, 0.5, (2, 0))
    with pytest.raises(ValueError, match="at least one query and one key"):
        select.top_k(torch.zeros(1, 1, 0, 4), 0.5, torch.ones(0, 4, dtype=torch.bool))


def test_kept_sets_unpack_in_the_order_of_the_operators():
    index, count = Kept(torch.zeros(1), torch.ones(1))
    assert index.item() == 0
    assert count.item() == 1
