"""A network that tells latency straight from shapes and data sheets.

After G. X. Yu, Y. Gao, P. Golikov, G. Pekhimenko, "Habitat: A Runtime-Based Computational Performance Predictor for
Deep Neural Network Training", USENIX ATC 2021: its perceptrons for operators whose kernels differ between GPUs take
layer sizes and four numbers of the GPU. As in the NeuSight paper they price every kind here; Habitat's other half, wave
scaling, wants the same kernel measured on another GPU, which a forecast from data sheets does not have. Reduced: 6
layers of 128 (8 of 1024 in the paper), fewer rows and epochs; logarithms go in and come out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gnomon.devices.device import Device
from gnomon.forecast import gpu
from gnomon.forecast.baselines import network
from gnomon.forecast.baselines.fitted import Arrays, FittedBaseline, Training, spread_evenly
from gnomon.forecast.kernels import Array, Kernels, Kind
from gnomon.forecast.pack.samples import Samples

if TYPE_CHECKING:
    from torch import Tensor

_SIZES: dict[Kind, tuple[str, ...]] = {
    "linear": ("m", "n", "k"),
    "bmm": ("batch", "m", "n", "k"),
    "softmax": ("rows", "columns", "moved_bytes"),
    "normalization": ("rows", "columns", "moved_bytes"),
}
_ANY = ("flop", "moved_bytes")


class Habitat(FittedBaseline):
    """log t = MLP(log sizes, log memory, log bandwidth, log units, log peak), least |log forecast - log measured|."""

    name = "habitat-1"
    training = Training(rows=12_000, epochs=16, width=128, depth=6)

    @classmethod
    def learn(cls, members: Sequence[Samples], training: Training) -> Arrays:
        rows = spread_evenly(members, training.rows, training.seed)
        features = np.concatenate([_features(one.kernels, one.device) for one in rows])
        seconds = np.concatenate([one.seconds for one in rows])
        middle = np.full((len(seconds), 1), np.log(seconds).mean())
        learned = network.train(features, middle, seconds, 1, _seconds, _log_error, training)
        return {**learned, "middle": middle[0]}

    def learned_seconds(self, learned: Arrays, kernels: Kernels, device: Device, physics: gpu.Physics) -> Array:
        middle = np.tile(learned["middle"], (len(kernels), 1))
        return network.apply(learned, _features(kernels, device), middle, _seconds)


def _features(kernels: Kernels, device: Device) -> Array:
    sizes = [np.log2(np.maximum(kernels[name], 1.0)) for name in _SIZES.get(kernels.kind, _ANY)]
    sheet = (device.memory_bytes.value, device.memory_bandwidth_b_s.value, device.units.value,
             gpu.peak(kernels.kind, kernels.precision, device))  # fmt: skip
    return np.stack([*sizes, *(np.full(len(kernels), np.log2(number)) for number in sheet)], axis=1)


def _seconds(outputs: "Tensor", middle: "Tensor") -> "Tensor":
    # far from what it has seen a network may say anything; bounded so that sums stay finite
    return (outputs[:, 0] + middle[:, 0]).clamp(-21.0, 7.0).exp()


def _log_error(forecast_s: "Tensor", measured_s: "Tensor") -> "Tensor":
    return (forecast_s.log() - measured_s.log()).abs().mean()
