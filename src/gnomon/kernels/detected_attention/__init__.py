"""Detected attention (DOTA): a low-precision detector picks the strong keys of each query, attention is exact on them.

Qu et al., ASPLOS 2022, doi 10.1145/3503222.3507738.
"""

from gnomon.kernels.detected_attention.detector import Detector
from gnomon.kernels.detected_attention.joint import detector_loss, detectors_only, jointly, set_mode
from gnomon.kernels.detected_attention.modules import DetectedAttention, Selection, estimation_loss
from gnomon.kernels.detected_attention.operator import (
    block_sparse_attention,
    detect_attend,
    select_blocks,
    select_top_k,
    sparse_attention,
)
from gnomon.kernels.detected_attention.select import Kept, Retention

__all__ = [
    "DetectedAttention",
    "Detector",
    "Kept",
    "Retention",
    "Selection",
    "block_sparse_attention",
    "detect_attend",
    "detector_loss",
    "detectors_only",
    "estimation_loss",
    "jointly",
    "select_blocks",
    "select_top_k",
    "set_mode",
    "sparse_attention",
]
