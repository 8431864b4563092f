"""Attention within sequences of uneven length that lie one after another: no padding is computed."""

from gnomon.kernels.packed_attention.batch import PackedBatch, pack, pad, unpack
from gnomon.kernels.packed_attention.functional import checked_cu_seqlens, packed_attention

__all__ = ["PackedBatch", "checked_cu_seqlens", "pack", "packed_attention", "pad", "unpack"]
