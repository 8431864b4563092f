"""Attention over a kept set of keys per query: the definition, in plain torch, for any floating dtype.

Qu et al., DOTA, ASPLOS 2022, doi 10.1145/3503222.3507738: s_ij = scale * q_i . k_j for the kept keys j of query i,
softmax over the kept set only (it renormalises), o_i = sum_j p_ij v_j. Slow and differentiable: what the kernels are
tested against.

Axes: B batch, H query heads, G key and value heads (H a multiple of G; query head h reads head h // (H / G)), N
queries, M keys, D head size, K kept keys of a query, T query blocks, U key blocks, X keys of a block.
"""

import torch
from torch import Tensor


def sparse_attention(
    q_BHND: Tensor, k_BGMD: Tensor, v_BGMD: Tensor, index_BHNK: Tensor, count_BHN: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of each query over the keys `index[..., :count]`.

    index: int32, distinct keys in [0, M); entries from `count` on are ignored. count: int32, 0..K. A query that keeps
    nothing gets zeros, and a log-sum-exp of minus infinity.
    Returns (out [B, H, N, D], lse [B, H, N]: log of the sum of exp(s) over the kept keys).
    """
    group = q_BHND.shape[1] // k_BGMD.shape[1]
    kept_BHNK = torch.arange(index_BHNK.shape[-1], device=q_BHND.device) < count_BHN[..., None]
    at_BHNK = index_BHNK.long().where(kept_BHNK, 0)
    k_BHNKD = _rows(k_BGMD.repeat_interleave(group, 1), at_BHNK)
    v_BHNKD = _rows(v_BGMD.repeat_interleave(group, 1), at_BHNK)
    s_BHNK = torch.einsum("bhnd,bhnkd->bhnk", q_BHND, k_BHNKD) * scale
    p_BHNK, lse_BHN = _softmax(s_BHNK, kept_BHNK)
    return torch.einsum("bhnk,bhnkd->bhnd", p_BHNK, v_BHNKD), lse_BHN


def block_sparse_attention(
    q_BHND: Tensor,
    k_BGMD: Tensor,
    v_BGMD: Tensor,
    index_BHTK: Tensor,
    count_BHT: Tensor,
    block: tuple[int, int],
    is_causal: bool,
    key_mask_BM: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention of each block of queries over the kept blocks of keys; inside them the masks hold key by key.

    index, count: as in `sparse_attention`, but of key blocks per query block. block: queries and keys in a block; the
    last block of either may be short. is_causal: query i sees keys j <= i + M - N. key_mask: bool, True where the key
    exists. Returns (out [B, H, N, D], lse [B, H, N]).
    """
    kept_BHNM = block_mask(index_BHTK, count_BHT, block, q_BHND.shape[2], k_BGMD.shape[2])
    visible_B1NM = visible(q_BHND.shape[2], k_BGMD.shape[2], is_causal, key_mask_BM, q_BHND.device)
    return masked_attention(q_BHND, k_BGMD, v_BGMD, kept_BHNM & visible_B1NM, scale)


def masked_attention(
    q_BHND: Tensor, k_BGMD: Tensor, v_BGMD: Tensor, mask_BHNM: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Dense scores, and the softmax over the keys where the mask is True. Returns (out, lse)."""
    group = q_BHND.shape[1] // k_BGMD.shape[1]
    s_BHNM = q_BHND @ k_BGMD.repeat_interleave(group, 1).transpose(-1, -2) * scale
    p_BHNM, lse_BHN = _softmax(s_BHNM, mask_BHNM)
    return p_BHNM @ v_BGMD.repeat_interleave(group, 1), lse_BHN


def token_mask(index_BHNK: Tensor, count_BHN: Tensor, keys: int) -> Tensor:
    """The kept set as a bool mask [B, H, N, keys]."""
    kept_BHNK = torch.arange(index_BHNK.shape[-1], device=index_BHNK.device) < count_BHN[..., None]
    mask = torch.zeros(*count_BHN.shape, keys + 1, dtype=torch.bool, device=index_BHNK.device)
    return mask.scatter_(-1, index_BHNK.long().where(kept_BHNK, keys), True)[..., :keys]


def block_mask(index_BHTK: Tensor, count_BHT: Tensor, block: tuple[int, int], queries: int, keys: int) -> Tensor:
    """The kept blocks as a bool mask [B, H, queries, keys]."""
    mask_BHTU = token_mask(index_BHTK, count_BHT, -(-keys // block[1]))
    return mask_BHTU.repeat_interleave(block[0], 2)[:, :, :queries].repeat_interleave(block[1], 3)[..., :keys]


def visible(queries: int, keys: int, is_causal: bool, key_mask_BM: Tensor | None, device: torch.device) -> Tensor:
    """Which keys a query may see before any selection: bool [B or 1, 1, queries, keys]."""
    mask = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=device)
    if is_causal:
        mask = mask.tril(keys - queries)
    return mask if key_mask_BM is None else mask & key_mask_BM[:, None, None, :]


def _rows(x_BHMD: Tensor, at_BHNK: Tensor) -> Tensor:
    batch, heads, _, size = x_BHMD.shape
    at = at_BHNK.reshape(batch, heads, -1, 1).expand(-1, -1, -1, size)
    return x_BHMD.gather(2, at).reshape(*at_BHNK.shape, size)


def _softmax(s: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax and log-sum-exp over the kept entries of the last axis; zeros and -inf where none is kept."""
    some = kept.any(-1, keepdim=True)
    s = s.masked_fill(~kept & some, float("-inf"))  # a row of -inf alone would make NaN, also in the gradient
    lse = torch.logsumexp(s.masked_fill(~some, 0.0), -1, keepdim=True) if s.shape[-1] else s.new_zeros(some.shape)
    p = torch.exp(s - lse).masked_fill(~kept, 0.0)
    return p, lse.masked_fill(~some, float("-inf")).squeeze(-1)
