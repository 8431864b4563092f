"""Attention of one layer with a detector: dense, dense while the detector learns, or exact on what the detector keeps.

Loss of the detector: mean (S - S~)^2 over visible pairs, per head, divided by the variance of that head's scores, which
reach hundreds and would drown the model's loss. Computing it needs all scores: only inference is cheaper, training is
not. The selection itself has no gradient; the model's loss flows through kept keys only.

Axes: B batch, N tokens, C width, H query heads, G key heads, D head size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnomon.kernels.detected_attention import reference, select
from gnomon.kernels.detected_attention.detector import Detector, Estimate
from gnomon.kernels.detected_attention.operator import (
    block_sparse_attention,
    check_qkv,
    detect_attend,
    select_blocks,
    select_top_k,
    sparse_attention,
)
from gnomon.kernels.detected_attention.select import Kept, Pool, Retention

Mode = Literal["dense", "observe", "sparse"]
Scores = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x [B, N, C], q, k) -> [B, H, N, N]


@dataclass(frozen=True, slots=True)
class Selection:
    """How keys are chosen.

    retention: share of keys kept by every query, in (0, 1]; with granularity "block", share of key blocks kept by every
    block of queries. threshold: keep what is estimated at or above it instead; in units of the scaled scores.
    block: queries and keys of a block. pool: how a block's score comes from its keys'.
    """

    retention: float = 0.1
    threshold: float | None = None
    granularity: Literal["token", "block"] = "token"
    block: tuple[int, int] = (32, 32)
    pool: Pool = "max"

    def __post_init__(self) -> None:
        select.check_retention(self.retention)
        if self.granularity not in ("token", "block"):
            raise ValueError(f"granularity must be 'token' or 'block'; got {self.granularity!r}")
        select.check_block(self.block)
        if self.pool not in ("max", "mean"):
            raise ValueError(f"pool must be 'max' or 'mean'; got {self.pool!r}")

    def __call__(self, scores_BHNN: Tensor, visible: Tensor, key_mask_BN: Tensor | None = None) -> Kept:
        """The kept keys or blocks by estimated scores; see `select`."""
        if self.granularity == "token":
            if self.threshold is not None:
                return select.above(scores_BHNN, self.threshold, visible)
            return select.top_k(scores_BHNN, self.retention, visible, key_mask_BN)
        if self.threshold is not None:
            return select.above(*_first(select.pool(scores_BHNN, self.block, visible, self.pool), self.threshold))
        return select.top_k_blocks(scores_BHNN, self.retention, visible, self.block, key_mask_BN, self.pool)

    def mask(self, kept: Kept, queries: int, keys: int) -> Tensor:
        """The kept pairs as a bool mask [B, H, queries, keys]; masks within blocks are not yet applied."""
        return select.mask_of(kept, queries, keys, self.block if self.granularity == "block" else None)


def _first(pooled: tuple[Tensor, Tensor], threshold: float) -> tuple[Tensor, float, Tensor]:
    return pooled[0], threshold, pooled[1]


class DetectedAttention(nn.Module):
    """Attention over the keys that `detector` picks by `selection`.

    mode: "dense" is plain attention; "observe" too, and sets `loss`; "sparse" attends to kept keys only, and sets
    `loss` while training. `loss` is the detector's, a scalar with a gradient, None where it was not computed.
    scores: stands in for the detector, for oracles and controls: (x, q, k) -> scores [B, H, N, N].
    """

    def __init__(self, detector: Detector, selection: Selection, scores: Scores | None = None) -> None:
        super().__init__()
        self.detector, self.selection, self.scores = detector, selection, scores
        self.mode: Mode = "sparse"
        self.loss: Tensor | None = None
        self.retention: Retention | None = None  # of the last selection by a threshold

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"loss": None}  # belongs to the last forward: its graph can be neither copied nor saved

    def forward(
        self,
        x_BNC: Tensor,
        q_BHND: Tensor,
        k_BGND: Tensor,
        v_BGND: Tensor,
        is_causal: bool = False,
        key_mask_BN: Tensor | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        """x: what the layer's projections read, [B, N, C]. q [B, H, N, D], k, v [B, G, N, D]: what they gave. key_mask:
        bool [B, N], True where the token exists. scale: None for 1 / sqrt(D). dropout: share of weights
        that training drops. Returns [B, H, N, D].
        """
        check_qkv(q_BHND, k_BGND, v_BGND)
        scale = q_BHND.shape[-1] ** -0.5 if scale is None else scale
        tokens = q_BHND.shape[2]
        self.loss = None
        learns = self.mode == "observe" or (self.mode == "sparse" and self.training and self.scores is None)
        if self.mode == "sparse" and not learns:
            return self._sparse(x_BNC, q_BHND, k_BGND, v_BGND, is_causal, key_mask_BN, scale)
        group = q_BHND.shape[1] // k_BGND.shape[1]
        k_BHND, v_BHND = (x.repeat_interleave(group, 1) if group > 1 else x for x in (k_BGND, v_BGND))
        seen: Tensor | None = None
        if is_causal or key_mask_BN is not None:
            seen = reference.visible(tokens, tokens, is_causal, key_mask_BN, q_BHND.device)
        if learns:
            estimate = self.detector(x_BNC, key_mask_BN)
            self.loss = estimation_loss(q_BHND @ k_BHND.transpose(-1, -2) * scale, estimate.scores(), seen)
            if self.mode == "sparse":  # training has all scores anyway, so a mask costs less than a gather
                kept = self._select(estimate, is_causal, key_mask_BN)
                mask = self.selection.mask(kept, tokens, tokens)
                seen = mask if seen is None else seen & mask
        out = functional.scaled_dot_product_attention(q_BHND, k_BHND, v_BHND, seen, dropout, scale=scale)
        # a query that sees nothing has no softmax: zeros, as the operators give
        return out if key_mask_BN is None else torch.nan_to_num(out)

    @torch.no_grad()
    def keep(
        self, x_BNC: Tensor, q: Tensor, k: Tensor, is_causal: bool = False, key_mask_BN: Tensor | None = None
    ) -> Kept:
        """What would be kept, without gradient; arguments as of `forward`."""
        if self.scores is None:
            return self._select(self.detector(x_BNC, key_mask_BN), is_causal, key_mask_BN)
        seen = reference.visible(q.shape[2], k.shape[2], is_causal, key_mask_BN, q.device)
        return self.selection(self.scores(x_BNC, q, k), seen, key_mask_BN)

    def _by_integers(self) -> bool:
        """Whether the operators of whole numbers do this selection."""
        few_bits = self.detector.bits is not None and self.detector.bits <= 8
        return few_bits and self.selection.threshold is None and self.selection.pool == "max"

    @torch.no_grad()
    def _select(self, estimate: Estimate, is_causal: bool, key_mask: Tensor | None) -> Kept:
        if self._by_integers():
            q_est, k_est = estimate.integers()
            if self.selection.granularity == "block":
                return select_blocks(q_est, k_est, self.selection.retention, self.selection.block, is_causal, key_mask)
            return select_top_k(q_est, k_est, self.selection.retention, is_causal, key_mask)
        # a factor common to a head ranks nothing, but a threshold is in units of scores
        scores = estimate.products() if self.selection.threshold is None else estimate.scores()
        seen = reference.visible(scores.shape[2], scores.shape[3], is_causal, key_mask, scores.device)
        kept = self.selection(scores, seen, key_mask)
        if self.selection.threshold is not None and self.selection.granularity == "token":
            self.retention = select.retention_of(kept, seen)
        return kept

    def _sparse(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, is_causal: bool, key_mask: Tensor | None, scale: float
    ) -> Tensor:
        needs_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        by_token = self.selection.granularity == "token"
        if self.scores is None and by_token and self._by_integers() and not needs_gradient:
            with torch.no_grad():
                q_est, k_est = self.detector(x, key_mask).integers()
            return detect_attend(q_est, k_est, q, k, v, self.selection.retention, is_causal, key_mask, scale)[0]
        kept = self.keep(x, q, k, is_causal, key_mask)
        if self.selection.granularity == "block":
            return block_sparse_attention(q, k, v, *kept, self.selection.block, is_causal, key_mask, scale)[0]
        return sparse_attention(q, k, v, *kept, scale)[0]


def estimation_loss(exact_BHNM: Tensor, estimate_BHNM: Tensor, visible: Tensor | None = None) -> Tensor:
    """Mean squared error of the estimate over visible pairs, in units of the variance of the head's exact scores.

    visible: bool, broadcasts to the scores; None for all. 0 is perfect, 1 as good as the mean of all scores. The
    gradient reaches the estimate and the exact scores, through their variance too: were it held fixed, a model could
    lower the loss by flattening all its scores, and does.
    """
    every = (0, 2, 3)
    error_BHNM = (exact_BHNM - estimate_BHNM).square()
    if visible is None:
        off_BHNM = exact_BHNM - exact_BHNM.mean(every, keepdim=True)
        error_H, variance_H = error_BHNM.mean(every), off_BHNM.square().mean(every)  # Tensor.var is 10x slower here
    else:
        seen = visible.expand_as(exact_BHNM)
        pairs_H = seen.sum(every).clamp_min(1)
        mean_H = exact_BHNM.masked_fill(~seen, 0).sum(every) / pairs_H
        off_BHNM = (exact_BHNM - mean_H[:, None, None]).masked_fill(~seen, 0)
        error_H = error_BHNM.masked_fill(~seen, 0).sum(every) / pairs_H
        variance_H = off_BHNM.square().sum(every) / pairs_H
    return (error_H / variance_H.clamp_min(torch.finfo(exact_BHNM.dtype).tiny)).mean()
