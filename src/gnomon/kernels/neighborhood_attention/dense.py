"""Dense attention in the layout of this folder, [B, tokens, heads, D], with a logsumexp that can be differentiated.

torch's scaled_dot_product_attention keeps its logsumexp, and neighborhood attention to additional tokens needs it.
Where queries and keys are as many, dense attention is the neighborhood attention whose window is everything, and the
fused operator computes it. Otherwise a chunk of queries at a time, computed again in the backward pass, so that no
n x m scores are kept.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from gnomon.kernels.neighborhood_attention.checks import autocast, check_attention, check_scale
from gnomon.kernels.neighborhood_attention.operator import attend
from gnomon.kernels.neighborhood_attention.problem import Problem

_CHUNK_BYTES = 64 * 2**20  # scores in flight


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    scale: float | None = None,
    return_lse: bool = False,
    **tuning: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """Dense attention: query [B, L, H, D], key [B, M, G, D], value [B, M, G, Dv] with G dividing H.

    is_causal: query i sees keys 0 to i, as in torch. scale: D ** -0.5 when None. tuning: NATTEN's tile arguments,
    without effect here; its packed sequences (seqlens_Q and the like) are refused. Returns [B, L, H, Dv], with
    return_lse also the natural logsumexp [B, L, H] in float32 (float64 for float64), both differentiable.
    Raises ValueError naming the argument.
    """
    for name, given in tuning.items():
        if name not in _TUNING:
            raise TypeError(f"attention() got an unexpected keyword argument {name!r}")
        if "seqlen" in name and given is not None:
            raise ValueError(f"{name}: packed sequences are not for this function; call it once per sequence")
    query, key, value = autocast(query, key, value)
    check_attention(("query", query), ("key", key), ("value", value))
    if query.dim() != 4:
        raise ValueError(f"query has {query.dim()} axes ({list(query.shape)}); wanted [batch, tokens, heads, head_dim]")
    if not isinstance(is_causal, bool):
        raise ValueError(f"is_causal must be a bool; got {is_causal!r}")
    scale = check_scale(scale, query.shape[-1])
    if return_lse:
        return attention_with_lse(query, key, value, is_causal, scale)
    repeats = query.shape[2] // max(key.shape[2], 1)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if repeats > 1:
        k, v = (x.repeat_interleave(repeats, 1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale).transpose(1, 2)


_TUNING = frozenset(
    {
        "seqlens_Q",
        "seqlens_KV",
        "cumulative_seqlen_Q",
        "cumulative_seqlen_KV",
        "max_seqlen_Q",
        "max_seqlen_KV",
        "backend",
        "q_tile_size",
        "kv_tile_size",
        "backward_q_tile_size",
        "backward_kv_tile_size",
        "backward_kv_splits",
        "backward_use_pt_reduction",
        "run_persistent_kernel",
        "kernel_schedule",
        "torch_compile",
    }
)


def attention_with_lse(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """(out, lse) of `attention`, for checked arguments; a query that sees no key has the output 0 and the LSE -inf."""
    tokens, others = query.shape[1], key.shape[1]
    if tokens == others > 0 and query.shape[-1] == value.shape[-1]:
        return attend(query, key, value, Problem((tokens,), (tokens,), (1,), (1,), (is_causal,)), scale)
    per_query = max(query.shape[0] * query.shape[2] * others * 4, 1)
    size = max(_CHUNK_BYTES // per_query, 1)
    if size >= tokens:
        return _chunk(query, key, value, is_causal, scale, 0)
    chunks = []
    for first in range(0, tokens, size):
        part = query[:, first : first + size]
        chunks.append(checkpoint(_chunk, part, key, value, is_causal, scale, first, use_reentrant=False))
    return torch.cat([out for out, _ in chunks], 1), torch.cat([lse for _, lse in chunks], 1)


def _chunk(
    q_BLHD: Tensor, k_BMGD: Tensor, v_BMGD: Tensor, is_causal: bool, scale: float, first: int
) -> tuple[Tensor, Tensor]:
    """Attention of the queries `first`, `first` + 1, ... to all keys."""
    wide = torch.promote_types(q_BLHD.dtype, torch.float32)
    _, tokens, heads, _ = q_BLHD.shape
    others, groups = k_BMGD.shape[1:3]
    q_BLGRD = q_BLHD.to(wide).unflatten(2, (groups, heads // max(groups, 1)))
    score_BGRLM = torch.einsum("blgrd,bmgd->bgrlm", q_BLGRD, k_BMGD.to(wide)) * scale
    if is_causal:
        query = torch.arange(first, first + tokens, device=q_BLHD.device)
        hidden_LM = torch.arange(others, device=q_BLHD.device) > query[:, None]
        score_BGRLM = score_BGRLM.masked_fill(hidden_LM, -torch.inf)
    lse_BGRL = score_BGRLM.logsumexp(-1)
    out_BLGRD = torch.einsum("bgrlm,bmgd->blgrd", score_BGRLM.softmax(-1), v_BMGD.to(wide))
    return out_BLGRD.flatten(2, 3).to(q_BLHD.dtype), lse_BGRL.flatten(1, 2).transpose(1, 2)
