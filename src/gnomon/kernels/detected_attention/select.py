"""Which keys each query keeps, from estimated scores: row-balanced top-k or a threshold, single keys or blocks of them.

Masks hold before the selection, so a hidden key is never kept. Equal scores: the lower index first. Balanced mode
keeps min(ceil(retention * keys that exist), keys that the query may see), at least one: the same work in every row.

Axes: B batch, H query heads, N queries, M keys, K kept, T query blocks, U key blocks.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gnomon.kernels.detected_attention import reference

Pool = Literal["max", "mean"]


class Kept(NamedTuple):
    """The kept keys (or key blocks) of each query (or query block): indices [B, H, N, K], counts [B, H, N], int32."""

    indices: Tensor
    counts: Tensor


class Retention(NamedTuple):
    """How large a share of the keys that it may see a query keeps, over all queries that see any."""

    mean: float
    low: float
    median: float
    high: float


def kept_of(retention: float, keys: int) -> int:
    """ceil(retention * keys), safe from the last bit of the product (0.07 * 100 is 7.000000000000001)."""
    return min(keys, max(1, math.ceil(retention * keys - 1e-9)))


def kept_per_sequence(retention: float, batch: int, keys: int, exist_BM: Tensor | None) -> Tensor:
    """How many of the keys (or blocks) that exist each sequence keeps: int64 [B]."""
    exist = [keys] * batch if exist_BM is None else exist_BM.sum(-1).tolist()
    return torch.tensor([kept_of(retention, n) if n else 0 for n in exist])


def block_exists(key_mask_BM: Tensor, size: int) -> Tensor:
    """Which blocks of `size` keys hold a key that exists: bool [B, U]."""
    return torch.nn.functional.pad(key_mask_BM, (0, -key_mask_BM.shape[1] % size)).unflatten(1, (-1, size)).any(-1)


def check_retention(retention: float) -> None:
    """Raises ValueError unless 0 < retention <= 1."""
    if not 0 < retention <= 1:
        raise ValueError(f"retention must be above 0 and at most 1, the share of keys that are kept; got {retention}")


def check_block(block: Sequence[int]) -> None:
    """Raises ValueError unless block is two positive sizes."""
    if len(block) != 2 or min(block) < 1:
        raise ValueError(f"block must be two positive sizes (queries, keys); got {tuple(block)}")


def top_k(scores_BHNM: Tensor, retention: float, visible: Tensor, key_mask_BM: Tensor | None = None) -> Kept:
    """Row-balanced selection. visible: bool, broadcasts to scores; key_mask: bool [B, M], which keys exist.

    Raises ValueError for a retention outside (0, 1] or no keys.
    """
    check_retention(retention)
    batch, _, queries, keys = scores_BHNM.shape
    if queries == 0 or keys == 0:
        raise ValueError(f"scores must have at least one query and one key; got {tuple(scores_BHNM.shape)}")
    wanted_B = kept_per_sequence(retention, batch, keys, key_mask_BM).to(scores_BHNM.device)
    most = kept_of(retention, keys)
    hidden_BHNM = ~visible.expand_as(scores_BHNM)
    # a stable sort, not topk, which leaves the order of equals open
    order = scores_BHNM.masked_fill(hidden_BHNM, -math.inf).sort(dim=-1, descending=True, stable=True).indices
    seen_BHN = (~hidden_BHNM).sum(-1)
    count_BHN = torch.minimum(seen_BHN, wanted_B[:, None, None])
    return _ascending(order[..., :most], count_BHN, keys)


def top_k_of_integers(
    q_est_BHNR: Tensor, k_est_BGMR: Tensor, key_mask_BM: Tensor | None, is_causal: bool, retention: float
) -> Kept:
    """`top_k` by the products of int8 operands, which are exact: the definition of the operator."""
    scores = _products(q_est_BHNR, k_est_BGMR)
    seen = reference.visible(scores.shape[2], scores.shape[3], is_causal, key_mask_BM, scores.device)
    return top_k(scores, retention, seen, key_mask_BM)


def blocks_of_integers(
    q_est_BHNR: Tensor,
    k_est_BGMR: Tensor,
    key_mask_BM: Tensor | None,
    is_causal: bool,
    retention: float,
    block: Sequence[int],
) -> Kept:
    """`top_k_blocks` by the largest product of int8 operands in a block: the definition of the operator."""
    scores = _products(q_est_BHNR, k_est_BGMR)
    seen = reference.visible(scores.shape[2], scores.shape[3], is_causal, key_mask_BM, scores.device)
    return top_k_blocks(scores, retention, seen, (block[0], block[1]), key_mask_BM)


def _products(q_est_BHNR: Tensor, k_est_BGMR: Tensor) -> Tensor:
    group = q_est_BHNR.shape[1] // k_est_BGMR.shape[1]
    return q_est_BHNR.double() @ k_est_BGMR.double().repeat_interleave(group, 1).transpose(-1, -2)


def above(scores_BHNM: Tensor, threshold: float, visible: Tensor) -> Kept:
    """Every visible key with a score of at least `threshold`; where there is none, the best one."""
    seen_BHNM = visible.expand_as(scores_BHNM)
    scores_BHNM = scores_BHNM.masked_fill(~seen_BHNM, -math.inf)
    kept_BHNM = (scores_BHNM >= threshold) & seen_BHNM
    best = scores_BHNM.argmax(-1, keepdim=True)  # the first of equals
    kept_BHNM = kept_BHNM.scatter(-1, best, kept_BHNM.gather(-1, best) | seen_BHNM.any(-1, keepdim=True))
    return from_mask(kept_BHNM)


def pool(scores_BHNM: Tensor, block: tuple[int, int], visible: Tensor, how: Pool = "max") -> tuple[Tensor, Tensor]:
    """Scores of blocks from scores of keys: the largest or the mean of those visible; and which blocks are visible.

    block: (queries, keys). Returns ([B, H, T, U], bool [B, H, T, U]).
    """
    _, _, queries, keys = scores_BHNM.shape
    down, right = -queries % block[0], -keys % block[1]
    seen = torch.nn.functional.pad(visible.expand_as(scores_BHNM), (0, right, 0, down))
    scores = torch.nn.functional.pad(scores_BHNM, (0, right, 0, down))
    seen, scores = (x.unflatten(3, (-1, block[1])).unflatten(2, (-1, block[0])).transpose(3, 4) for x in (seen, scores))
    any_BHTU = seen.any(-1).any(-1)
    if how == "max":
        return scores.masked_fill(~seen, -math.inf).amax((-2, -1)), any_BHTU
    return scores.masked_fill(~seen, 0).sum((-2, -1)) / seen.sum((-2, -1)).clamp_min(1), any_BHTU


def top_k_blocks(
    scores_BHNM: Tensor,
    retention: float,
    visible: Tensor,
    block: tuple[int, int],
    key_mask_BM: Tensor | None = None,
    how: Pool = "max",
) -> Kept:
    """Row-balanced selection of key blocks for each block of queries."""
    pooled_BHTU, seen_BHTU = pool(scores_BHNM, block, visible, how)
    mask_BU = None if key_mask_BM is None else block_exists(key_mask_BM, block[1])
    return top_k(pooled_BHTU, retention, seen_BHTU, mask_BU)


def from_mask(kept_BHNM: Tensor) -> Kept:
    """The kept set of a bool mask; K is the largest count, at least 1."""
    count_BHN = kept_BHNM.sum(-1)
    most = max(1, int(count_BHN.max()))
    order = kept_BHNM.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices
    return _ascending(order[..., :most], count_BHN, kept_BHNM.shape[-1])


def retention_of(kept: Kept, visible: Tensor) -> Retention:
    """The shares that were kept: mean, least, median and largest over queries."""
    seen = visible.sum(-1).expand_as(kept.counts)
    share = (kept.counts[seen > 0].double() / seen[seen > 0]).sort().values
    if not len(share):
        return Retention(0.0, 0.0, 0.0, 0.0)
    return Retention(float(share.mean()), float(share[0]), float(share[(len(share) - 1) // 2]), float(share[-1]))


def mass(q: Tensor, k: Tensor, kept_BHNM: Tensor, visible: Tensor, scale: float) -> Tensor:
    """Share of each query's dense softmax that falls on its kept keys: [B, H, N], 0 for a query that sees no key."""
    group = q.shape[1] // k.shape[1]
    scores = (q @ k.repeat_interleave(group, 1).transpose(-1, -2) * scale).masked_fill(~visible, -math.inf)
    return torch.nan_to_num(scores.softmax(-1)).masked_fill(~kept_BHNM, 0).sum(-1)


def _ascending(order: Tensor, count: Tensor, keys: int) -> Kept:
    """The first `count` of each row, in ascending order, -1 behind them."""
    kept = torch.arange(order.shape[-1], device=order.device) < count[..., None]
    index = order.masked_fill(~kept, keys).sort(-1).values
    return Kept(index.masked_fill(~kept, -1).int().contiguous(), count.int().contiguous())


def mask_of(kept: Kept, queries: int, keys: int, block: tuple[int, int] | None = None) -> Tensor:
    """The kept set as a bool mask [B, H, queries, keys]; block: its sizes where blocks were kept."""
    if block is None:
        return reference.token_mask(kept.indices, kept.counts, keys)
    return reference.block_mask(kept.indices, kept.counts, block, queries, keys)
