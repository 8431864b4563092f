"""Neighborhood attention as softmax(scale * Q K^T + bias) V under a dense mask: the definition; speed is elsewhere.

Hassani et al. 2023 (arXiv:2204.07143) eq. 2-4, with the windows of `problem.py`. It is differentiable as it stands and
takes any floating dtype; 16-bit inputs are computed in float32. `backward` is its gradient as formulas, for an operator
that runs below autograd; the tests hold it against autograd of the forward.
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
    q_BNHD, k_BNHD, v_BNHD = _flat(problem, q, k, v)
    score_BHNN = _scores(q_BNHD, k_BNHD, problem, scale, rpb)
    out_BNHD = torch.einsum("bhij,bjhd->bihd", score_BHNN.softmax(-1), v_BNHD)
    lse_BNH = score_BHNN.logsumexp(-1).transpose(1, 2)
    return out_BNHD.unflatten(1, problem.space).to(q.dtype), lse_BNH.unflatten(1, problem.space)


def backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    problem: Problem,
    scale: float,
    rpb: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(dq, dk, dv, drpb): the gradient of `neighborhood_attention`, each in the dtype of what it belongs to.

    P = exp(S - lse), dV = P^T dO, dS = P * (dO V^T - delta), dQ = scale dS K, dK = scale dS^T Q; d lse / dS is P, so
    delta = rowsum(dO * O) - dlse. drpb is None without rpb.
    """
    q_BNHD, k_BNHD, v_BNHD = _flat(problem, q, k, v)
    grad_BNHD, out_BNHD, _ = _flat(problem, grad_out, out, v)
    delta_BHN = (grad_BNHD * out_BNHD).sum(-1).transpose(1, 2)
    if grad_lse is not None:
        delta_BHN = delta_BHN - grad_lse.flatten(1, -2).transpose(1, 2)
    p_BHNN = (_scores(q_BNHD, k_BNHD, problem, scale, rpb) - lse.flatten(1, -2).transpose(1, 2)[..., None]).exp()
    ds_BHNN = p_BHNN * (torch.einsum("bihd,bjhd->bhij", grad_BNHD, v_BNHD) - delta_BHN[..., None])
    dq = scale * torch.einsum("bhij,bjhd->bihd", ds_BHNN, k_BNHD)
    dk = scale * torch.einsum("bhij,bihd->bjhd", ds_BHNN, q_BNHD)
    dv = torch.einsum("bhij,bihd->bjhd", p_BHNN, grad_BNHD)
    dk, dv = (x.unflatten(2, (k.shape[-2], -1)).sum(3) for x in (dk, dv))
    drpb = None
    if rpb is not None:
        drpb = torch.zeros_like(rpb, dtype=dq.dtype).flatten(1)
        drpb = drpb.index_add_(1, offsets(problem, rpb.device).flatten(), ds_BHNN.sum(0).flatten(1))
        drpb = drpb.reshape(rpb.shape).to(rpb.dtype)
    return *(x.unflatten(1, problem.space).to(q.dtype) for x in (dq, dk, dv)), drpb


def _flat(problem: Problem, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """q, k, v as [B, N, H, D] in the dtype of the computation, with a key/value head for each query head."""
    wide = torch.promote_types(q.dtype, torch.float32)
    flat = [x.to(wide).flatten(1, len(problem.space)) for x in (q, k, v)]
    return [x.repeat_interleave(q.shape[-2] // max(x.shape[-2], 1), dim=2) for x in flat]


def _scores(q_BNHD: Tensor, k_BNHD: Tensor, problem: Problem, scale: float, rpb: Tensor | None) -> Tensor:
    """[B, H, N, N]: scaled and biased, minus infinity where the query does not see the key."""
    score_BHNN = torch.einsum("bihd,bjhd->bhij", q_BNHD, k_BNHD) * scale
    if rpb is not None:
        score_BHNN = score_BHNN + rpb.to(score_BHNN.dtype).flatten(1)[:, offsets(problem, rpb.device)]
    hidden_NN = ~torch.from_numpy(problem.mask()).to(q_BNHD.device)
    return score_BHNN.masked_fill(hidden_NN, -torch.inf)


def offsets(problem: Problem, device: torch.device) -> Tensor:
    """[N, N]: the entry of the flattened table at each pair's offset; arbitrary for pairs that are not seen."""
    tokens = torch.arange(problem.tokens, device=device)
    index_NN = torch.zeros(problem.tokens, problem.tokens, dtype=torch.int64, device=device)
    places = torch.unravel_index(tokens, problem.space)
    for place, w, d in zip(places, problem.kernel_size, problem.dilation, strict=True):
        offset_NN = (place // d)[None, :] - (place // d)[:, None]
        index_NN = index_NN * (2 * w - 1) + (offset_NN + w - 1).clamp(0, 2 * w - 2)
    return index_NN
