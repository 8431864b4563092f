"""A program: a task brought to life, ready to be called. The one place where a manifest turns into a torch module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnomon.spec.task import Task

Predict = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Program:
    """A task in this process.

    inputs: one example batch by name. predict: inputs to a tuple of output tensors, without gradients. step: the call
    that is timed (one prediction, or one training step: forward, loss, backward, optimizer, gradients cleared).
    model, optimizer: None where an engine other than torch runs the model.
    """

    task: Task
    inputs: Mapping[str, Tensor]
    predict: Predict
    step: Callable[[], tuple[Tensor, ...]]
    model: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None
