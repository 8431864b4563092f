"""Linear regression per kind of kernel and GPU, carried to other GPUs by their bandwidth.

After Y. Li, Y. Sun, A. Jog, "Path Forward Beyond Simulators: Fast and Accurate GPU Execution Time Prediction for DNN
Workloads", MICRO 2023, as the NeuSight paper uses it: the time of a kernel grows linearly with one size, a second
regression tells the slope of a GPU that was not measured from its memory bandwidth. Our choices where these leave room:
the size is FLOP or bytes, whichever fits the measured GPUs better; errors are relative; no coefficient is negative.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gnomon.devices.device import Device
from gnomon.forecast import gpu
from gnomon.forecast.baselines.fitted import Arrays, FittedBaseline, Training, spread_evenly
from gnomon.forecast.kernels import Array, Kernels
from gnomon.forecast.pack.samples import Samples

_SIZES = ("flop", "moved_bytes")


class Line(NamedTuple):
    """y = slope x + intercept, neither below zero. error: mean |predicted / y - 1|."""

    slope: float
    intercept: float
    error: float


class LinearRegression(FittedBaseline):
    """t = size / rate(bandwidth) + t_0 with rate(W) = alpha W + beta; size is the FLOP or the bytes of the kernel."""

    name = "linear-regression-1"
    training = Training(rows=40_000)

    @classmethod
    def learn(cls, members: Sequence[Samples], training: Training) -> Arrays:
        rows = spread_evenly(members, training.rows, training.seed)
        by_size = [[relative_line(one.kernels[size], one.seconds) for one in rows] for size in _SIZES]
        # a slope of zero says that this size does not explain the times
        errors = [np.mean([line.error + (line.slope <= 0) for line in lines]) for lines in by_size]
        best = int(np.argmin(errors))
        kept = [(one, line) for one, line in zip(rows, by_size[best], strict=True) if line.slope > 0]
        bandwidths = np.array([one.device.memory_bandwidth_b_s.value for one, _ in kept])
        rates = relative_line(bandwidths, np.array([1 / line.slope for _, line in kept]))
        intercept_s = np.median([line.intercept for _, line in kept])
        return {
            "size": np.array(best),
            "rate": np.array([rates.slope, rates.intercept]),
            "intercept_s": np.array(intercept_s),
        }

    def learned_seconds(self, learned: Arrays, kernels: Kernels, device: Device, physics: gpu.Physics) -> Array:
        alpha, beta = learned["rate"]
        rate = alpha * device.memory_bandwidth_b_s.value + beta
        return np.asarray(kernels[_SIZES[int(learned["size"])]] / rate + learned["intercept_s"])


def relative_line(x: Array, y: Array) -> Line:
    """The line of least squared relative errors through positive x and y among those without a negative coefficient."""
    columns = np.stack([x, np.ones_like(x)], axis=1) / y[:, None]
    both = np.linalg.lstsq(columns / columns.max(axis=0), np.ones_like(y), rcond=None)[0] / columns.max(axis=0)
    if (both < 0).any():  # least squares over a quadrant: the best point then lies on one of its edges
        edges = [np.array([_alone(columns[:, 0]), 0.0]), np.array([0.0, _alone(columns[:, 1])])]
        both = min(edges, key=lambda edge: float(np.sum((columns @ edge - 1) ** 2)))
    return Line(float(both[0]), float(both[1]), float(np.mean(np.abs(columns @ both - 1))))


def _alone(column: Array) -> float:
    return float(column.sum() / (column @ column))
