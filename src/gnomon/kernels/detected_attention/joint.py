"""Training with detectors: first the detectors alone on a frozen dense model, then both together with the mask on.

L = L_model + weight * L_MSE (Qu et al. 2022, doi 10.1145/3503222.3507738), L_MSE the mean over layers of each
detector's normalised loss. These functions find every `DetectedAttention` inside a model; the optimizer is the
caller's:

    with detectors_only(model) as parameters: ...   # minimise detector_loss(model) by `parameters`
    with jointly(model) as parameters: ...          # minimise model_loss + weight * detector_loss(model)
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gnomon.kernels.detected_attention.modules import DetectedAttention, Mode


def detected(model: nn.Module) -> list[DetectedAttention]:
    """Every detected attention inside the model. Raises ValueError where there is none."""
    found = [module for module in model.modules() if isinstance(module, DetectedAttention)]
    if not found:
        raise ValueError("model holds no DetectedAttention; wrap it first")
    return found


def set_mode(model: nn.Module, mode: Mode) -> None:
    """Switch every detected attention of the model: "dense", "observe" or "sparse"."""
    if mode not in ("dense", "observe", "sparse"):
        raise ValueError(f"mode must be 'dense', 'observe' or 'sparse'; got {mode!r}")
    for attention in detected(model):
        attention.mode = mode


def detector_loss(model: nn.Module) -> Tensor:
    """L_MSE of the last forward: the mean over layers. Raises ValueError when no layer has one.

    A layer has one after a forward in mode "observe", or in mode "sparse" while it trains.
    """
    losses = [attention.loss for attention in detected(model) if attention.loss is not None]
    if not losses:
        raise ValueError("model has no detector loss: run a forward in mode 'observe', or in 'sparse' while it trains")
    return torch.stack(losses).mean()


@contextmanager
def detectors_only(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Dense forwards, and gradients for the detectors alone. Yields their parameters; then restores what was."""
    attentions = detected(model)
    learn = {id(p) for attention in attentions for p in attention.detector.parameters()}
    before = [(p, p.requires_grad) for p in model.parameters()]
    modes = [attention.mode for attention in attentions]
    try:
        for p, _ in before:
            p.requires_grad_(id(p) in learn)
        set_mode(model, "observe")
        yield [p for p, _ in before if id(p) in learn]
    finally:
        for p, required in before:
            p.requires_grad_(required)
        for attention, mode in zip(attentions, modes, strict=True):
            attention.mode = mode


@contextmanager
def jointly(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Forwards over kept keys only, and gradients for model and detectors. Yields all parameters that train."""
    attentions = detected(model)
    modes = [attention.mode for attention in attentions]
    try:
        set_mode(model, "sparse")
        yield [p for p in model.parameters() if p.requires_grad]
    finally:
        for attention, mode in zip(attentions, modes, strict=True):
            attention.mode = mode
