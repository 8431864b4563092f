"""Attention of each query to the k keys whose low-bit scores are highest: quantized top-k attention."""

from gnomon.kernels.quantized_topk_attention.functional import (
    MOST_BITS,
    Stats,
    quantized_topk_attention,
    quantized_topk_attention_packed,
)

__all__ = ["MOST_BITS", "Stats", "quantized_topk_attention", "quantized_topk_attention_packed"]
