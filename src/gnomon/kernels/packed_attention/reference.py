"""Attention within sequences that lie one after another, without padding, in plain torch: one sequence at a time.

Axes: T tokens of all sequences, S sequences, H query heads, G key heads (H is a multiple), D head size, E size of the
values, N tokens of one sequence.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor


class Attended(NamedTuple):
    """out: [T, H, E] in q's dtype. lse: [T, H], log of the sum of exp(score); float64 for float64, else float32."""

    out: Tensor
    lse: Tensor


def packed_attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, is_causal: bool, scale: float) -> Attended:
    """softmax(q k^T scale) v for the tokens cu_seqlens[i] up to cu_seqlens[i + 1] of each sequence i. Differentiable.

    q: [T, H, D], k: [T, G, D], v: [T, G, E]. is_causal: a token sees itself and those before it in its sequence.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    group = q.shape[1] // k.shape[1]
    q_HTD = q.to(wide).transpose(0, 1)
    k_HTD, v_HTE = (x.to(wide).repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))
    outs, sums = [v_HTE.new_empty(q.shape[1], 0, v.shape[-1])], [v_HTE.new_empty(q.shape[1], 0)]
    bounds = cu_seqlens.tolist()
    for start, stop in itertools.pairwise(bounds):
        scores_HNN = q_HTD[:, start:stop] @ k_HTD[:, start:stop].transpose(-1, -2) * scale
        if is_causal:
            hidden_NN = torch.ones(stop - start, stop - start, dtype=torch.bool, device=q.device).triu(1)
            scores_HNN = scores_HNN.masked_fill(hidden_NN, -torch.inf)
        outs.append(scores_HNN.softmax(-1) @ v_HTE[:, start:stop])
        sums.append(scores_HNN.logsumexp(-1))
    return Attended(torch.cat(outs, 1).transpose(0, 1).contiguous().to(q.dtype), torch.cat(sums, 1).t().contiguous())


def backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    out: Tensor,
    lse: Tensor,
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) of `packed_attention`: with p = exp(s - lse), ds = p (dp - sum(dp p) + dlse)."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    groups = (k.shape[1], q.shape[1] // k.shape[1])
    q_HTD, grad_HTE = (x.to(wide).transpose(0, 1) for x in (q, grad_out))
    k_HTD, v_HTE = (x.to(wide).repeat_interleave(groups[1], 1).transpose(0, 1) for x in (k, v))
    dq_HTD, dk_HTD, dv_HTE = torch.zeros_like(q_HTD), torch.zeros_like(k_HTD), torch.zeros_like(v_HTE)
    bounds = cu_seqlens.tolist()
    for start, stop in itertools.pairwise(bounds):
        one = slice(start, stop)
        scores_HNN = q_HTD[:, one] @ k_HTD[:, one].transpose(-1, -2) * scale
        if is_causal:
            hidden_NN = torch.ones(stop - start, stop - start, dtype=torch.bool, device=q.device).triu(1)
            scores_HNN = scores_HNN.masked_fill(hidden_NN, -torch.inf)
        p_HNN = scores_HNN.softmax(-1)
        dp_HNN = grad_HTE[:, one] @ v_HTE[:, one].transpose(-1, -2)
        ds_HNN = dp_HNN - (dp_HNN * p_HNN).sum(-1, keepdim=True)
        if grad_lse is not None:
            ds_HNN = ds_HNN + grad_lse[one].to(wide).t()[..., None]
        ds_HNN = ds_HNN * p_HNN * scale
        dq_HTD[:, one] = ds_HNN @ k_HTD[:, one]
        dk_HTD[:, one] = ds_HNN.transpose(-1, -2) @ q_HTD[:, one]
        dv_HTE[:, one] = p_HNN.transpose(-1, -2) @ grad_HTE[:, one]
    dk_TGD, dv_TGE = (x.unflatten(0, groups).sum(1).transpose(0, 1) for x in (dk_HTD, dv_HTE))
    return (
        dq_HTD.transpose(0, 1).contiguous().to(q.dtype),
        dk_TGD.contiguous().to(k.dtype),
        dv_TGE.contiguous().to(v.dtype),
    )
