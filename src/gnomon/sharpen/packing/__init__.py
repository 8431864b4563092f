"""Encoders that compute tokens instead of padding, and batches of uneven sentences for them."""

from gnomon.kernels.packed_attention import PackedBatch, pack, pad, unpack
from gnomon.sharpen.packing.encoders import TopK, pack_encoders, why_not
from gnomon.sharpen.packing.runner import PackedRunner, schedule
from gnomon.workload.sampler import LengthAwareSampler

__all__ = [
    "LengthAwareSampler",
    "PackedBatch",
    "PackedRunner",
    "TopK",
    "pack",
    "pack_encoders",
    "pad",
    "schedule",
    "unpack",
    "why_not",
]
