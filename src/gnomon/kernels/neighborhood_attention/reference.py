"""Neighborhood attention as softmax(scale * Q K^T + bias) V under a dense mask: the definition; speed is elsewhere.

Hassani et al. 2023 (arXiv:2204.07143) eq. 2-4, with the windows of `problem.py`. It is differentiable as it stands and
takes any floating dtype; 16-bit inputs are computed in float32.
Axes: B batch, N tokens, H query heads, G key/value heads, D head size.
"""

import torch
from torch import Tensor

from gnomon.kernels.neighborhood_attention.problem import Problem


def neighborhood_attention(
    q: Tensor, k: Tensor, v: Tensor, problem: Problem, scale: float, rpb: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(out, lse): the output, and the natural logsumexp of the scaled and biased scores that a query sees.

    q: [B, *space, H, D]; k: [B, *space, G, D] and v: [B, *space, G, Dv] with G dividing H, query head h reading
    key/value head h * G // H. rpb: [H, 2 w - 1 for each axis], added at the offset of key and query in group
    coordinates. Returns [B, *space, H, Dv] in q's dtype and [B, *space, H] in float32 (float64 for float64).
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    heads, repeats = q.shape[-2], q.shape[-2] // k.shape[-2]
    axes = slice(1, 1 + len(problem.space))
    q_BNHD, k_BNHD, v_BNHD = (x.to(wide).flatten(1, axes.stop - 1) for x in (q, k, v))
    k_BNHD, v_BNHD = (x.repeat_interleave(repeats, dim=2) for x in (k_BNHD, v_BNHD))
    score_BHNN = torch.einsum("bihd,bjhd->bhij", q_BNHD, k_BNHD) * scale
    if rpb is not None:
        score_BHNN = score_BHNN + _bias(rpb.to(wide), problem)
    hidden_NN = ~torch.from_numpy(problem.mask()).to(q.device)
    score_BHNN = score_BHNN.masked_fill(hidden_NN, -torch.inf)
    out_BNHD = torch.einsum("bhij,bjhd->bihd", score_BHNN.softmax(-1), v_BNHD)
    lse_BNH = score_BHNN.logsumexp(-1).transpose(1, 2)
    shape = q.shape[axes]
    return out_BNHD.unflatten(1, shape).to(q.dtype), lse_BNH.reshape(q.shape[0], *shape, heads)


def _bias(rpb: Tensor, problem: Problem) -> Tensor:
    """[H, N, N]: the table read at each pair's offset; pairs that are not seen read an arbitrary entry."""
    tokens = torch.arange(problem.tokens, device=rpb.device)
    index = torch.zeros(problem.tokens, problem.tokens, dtype=torch.int64, device=rpb.device)
    places = torch.unravel_index(tokens, problem.space)
    for place, w, d in zip(places, problem.kernel_size, problem.dilation, strict=True):
        offset_NN = (place // d)[None, :] - (place // d)[:, None]
        index = index * (2 * w - 1) + (offset_NN + w - 1).clamp(0, 2 * w - 2)
    return rpb.flatten(1)[:, index]
