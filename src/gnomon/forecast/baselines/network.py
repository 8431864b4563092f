"""A multilayer perceptron for the baselines: ReLU between linear layers, AdamW, the epoch of best validation kept.

The weights are named arrays, so that a fit can be kept without pickle. torch is imported inside the functions.
"""

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gnomon.forecast.baselines.fitted import Arrays, Training
from gnomon.forecast.kernels import Array

if TYPE_CHECKING:
    from torch import Tensor

Seconds = Callable[["Tensor", "Tensor"], "Tensor"]  # outputs [N, O] and givens [N, G] of rows -> time of each
Loss = Callable[["Tensor", "Tensor"], "Tensor"]  # forecast and measured seconds -> one number


def train(features: Array, givens: Array, measured_s: Array, outputs: int, seconds: Seconds, loss: Loss,
          training: Training) -> Arrays:  # fmt: skip
    """Weights that forecast `measured_s` [N] from `features` [N, F]; `seconds` tells times from what the network says.

    One row in five is kept apart; the weights of the epoch with the least mean relative error on these are returned.
    """
    import torch

    rng = np.random.default_rng(training.seed)
    order = rng.permutation(len(features))
    held, used = np.split(order, [max(1, len(order) // 5)])
    mean, scale = features[used].mean(axis=0), np.maximum(features[used].std(axis=0), 1e-6)
    x = torch.tensor((features - mean) / scale, dtype=torch.float32)
    given, target = (torch.tensor(values, dtype=torch.float32) for values in (givens, measured_s))
    layers = _initial(features.shape[1], outputs, training)
    parameters = list(itertools.chain(*layers))
    optimizer = torch.optim.AdamW(parameters, lr=training.rate)
    batch = min(training.batch, len(used))
    batches = math.ceil(len(used) / batch)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.rate, total_steps=training.epochs * batches, pct_start=0.15
    )
    best, least = [p.detach().clone() for p in parameters], math.inf
    for _ in range(training.epochs):
        for rows in np.array_split(rng.permutation(used), batches):
            optimizer.zero_grad()
            loss(seconds(_forward(layers, x[rows]), given[rows]), target[rows]).backward()
            optimizer.step()
            cycle.step()
        with torch.no_grad():
            error = float((seconds(_forward(layers, x[held]), given[held]) / target[held] - 1).abs().mean())
        if error < least:
            best, least = [p.detach().clone() for p in parameters], error
    arrays = {f"{'wb'[i % 2]}{i // 2}": p.numpy() for i, p in enumerate(best)}
    return {**arrays, "mean": mean, "scale": scale, "validation_error": np.array(least)}


def apply(learned: Arrays, features: Array, givens: Array, seconds: Seconds) -> Array:
    """Seconds of each row as the trained network has it."""
    import torch

    depth = sum(name.startswith("w") for name in learned)
    layers = [(torch.from_numpy(learned[f"w{i}"]), torch.from_numpy(learned[f"b{i}"])) for i in range(depth)]
    x = torch.tensor((features - learned["mean"]) / learned["scale"], dtype=torch.float32)
    with torch.no_grad():
        made = seconds(_forward(layers, x), torch.tensor(givens, dtype=torch.float32))
    return np.asarray(made.numpy(), dtype=float)


def _initial(inputs: int, outputs: int, training: Training) -> list[tuple["Tensor", "Tensor"]]:
    """torch's own scale for linear layers; a larger one errs more on a GPU unlike the others."""
    import torch

    generator = torch.Generator().manual_seed(training.seed)

    def uniform(*shape: int, bound: float) -> "Tensor":
        return ((torch.rand(*shape, generator=generator) * 2 - 1) * bound).requires_grad_()

    sizes = [inputs, *[training.width] * (training.depth - 1), outputs]
    return [(uniform(b, a, bound=a**-0.5), uniform(b, bound=a**-0.5)) for a, b in itertools.pairwise(sizes)]


def _forward(layers: list[tuple["Tensor", "Tensor"]], x: "Tensor") -> "Tensor":
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if i < len(layers) - 1:
            x = x.relu()
    return x
