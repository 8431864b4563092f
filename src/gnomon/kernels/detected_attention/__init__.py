"""Detected attention (DOTA): a low-precision detector picks the strong keys of each query, attention is exact on them.

Qu et al., ASPLOS 2022, doi 10.1145/3503222.3507738.
"""

from gnomon.kernels.detected_attention.operator import block_sparse_attention, sparse_attention

__all__ = ["block_sparse_attention", "sparse_attention"]
