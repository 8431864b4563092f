"""Stages that many tasks share, to be named in a manifest's `stages`."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gnomon.workload.context import Context


def top_k(context: Context, outputs: tuple[Tensor, ...], k: int = 1) -> dict[str, Tensor]:
    """The k largest scores along the last axis of the first output: {'classes', 'scores'}, each [..., k]."""
    scores, classes = outputs[0].topk(k, dim=-1)
    return {"classes": classes, "scores": scores}


def scale_pixels(
    context: Context, batch: Mapping[str, Tensor], mean: Sequence[float], std: Sequence[float]
) -> dict[str, Tensor]:
    """Pictures [B, C, H, W] of bytes, by input name, as (x / 255 - mean) / std. mean, std: one per channel."""
    return {name: (pixels / 255 - _by_channel(mean)) / _by_channel(std) for name, pixels in batch.items()}


def _by_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
