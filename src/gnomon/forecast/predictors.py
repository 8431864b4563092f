"""Predictors by name: each prices operators on a device. `gnomon` is ours; the others are there to be compared with."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gnomon.core.registry import Registry
from gnomon.devices.device import Device
from gnomon.forecast import cpu, gpu
from gnomon.forecast.collectives import transfer_time
from gnomon.forecast.kernels import Array, Kernels, group
from gnomon.forecast.model import Model, shipped
from gnomon.forecast.price import NINE_IN_TEN, Price
from gnomon.forecast.record import Bound, Estimate
from gnomon.forecast.residual import FAR, correct, family, nearest, traits
from gnomon.forecast.work import Work


class Predictor(Protocol):
    """name: what a forecast says made it, with a version."""

    name: str

    def prices(self, works: Sequence[Work], device: Device) -> list[Price]:
        """The price of every operator, in order. Raises UsageError when the device lacks a precision."""
        ...

    def common_spread(self, device: Device) -> float:
        """Standard deviation of the logarithm of what is wrong with all operators of a device alike."""
        ...

    def remarks(self, device: Device) -> list[str]:
        """What a reader of a forecast for `device` should know about the predictor."""
        ...


def price_all(predictor: Predictor, works: Sequence[Work], device: Device) -> list[Price]:
    """The predictor's prices; what moves between devices is priced by `collectives`, whichever predictor it is."""
    local = iter(predictor.prices([work for work in works if work.transfer is None], device))
    return [
        next(local) if work.transfer is None else Price(transfer_time(work.transfer, device), "communication")
        for work in works
    ]


class Times(NamedTuple):
    """Of each kernel: expected, least and most seconds. shared: log spread of what is wrong with all of them alike."""

    value: Array
    low: Array
    high: Array
    shared: float | None


class Physics:
    """Data sheets and constants alone, nothing fitted."""

    name = "physics-2"

    def prices(self, works: Sequence[Work], device: Device) -> list[Price]:
        if device.kind == "cpu":
            return [cpu.price(work, device) for work in works]
        prices = [_NOTHING] * len(works)
        for positions, kernels in group(works):
            physics = gpu.physics(kernels, device)
            times = self.times(kernels, device, physics)
            for at, i in enumerate(positions):
                prices[i] = _price(works[i], physics, times, at)
        return prices

    def common_spread(self, device: Device) -> float:
        return 0.22  # clocks under a power limit, versions of libraries: what nothing fitted can know

    def remarks(self, device: Device) -> list[str]:
        return []

    def times(self, kernels: Kernels, device: Device, physics: gpu.Physics, is_warm: bool = False) -> Times:
        """Times of many kernels of one kind on a GPU, given their physics.

        is_warm: the same call was repeated when it was timed, so that operands may lie in the last cache; a forecast
        never counts on that.
        """
        floor = gpu.floor_s(kernels.kind, device)
        return Times(physics.seconds + floor.value, physics.low_s + floor.low, physics.high_s + floor.high, None)


class Gnomon(Physics):
    """Physics, corrected by what it got wrong on GPUs that were measured (`residual`); the shipped fit by default."""

    name = "gnomon-1"

    def __init__(self, model: Model | None = None) -> None:
        self._model = model or shipped()

    def common_spread(self, device: Device) -> float:
        return super().common_spread(device) if device.kind == "cpu" else 0.05

    def remarks(self, device: Device) -> list[str]:
        if device.kind == "cpu":
            return []
        name, distance = nearest(traits(device), self._model.experts)
        if distance <= FAR:
            return []
        return [f"far from every measured GPU (nearest: {name}, {distance:.1f}): little of what was learned is applied"]

    def times(self, kernels: Kernels, device: Device, physics: gpu.Physics, is_warm: bool = False) -> Times:
        name = family(kernels.kind, kernels.precision)
        experts = self._model.experts.get(name, ())
        if not experts:
            return super().times(kernels, device, physics, is_warm)
        correction = correct(kernels, physics, device, experts)
        spread = self._model.spread(name, correction.distance)
        least = np.zeros_like(physics.roofline_s) if is_warm else physics.roofline_s
        value = np.maximum(
            (physics.seconds + gpu.floor_s(kernels.kind, device).value) * np.exp(correction.log_factor), least
        )
        width = NINE_IN_TEN * spread.whole
        return Times(value, np.maximum(value * math.exp(-width), least), value * math.exp(width), spread.shared)


_NOTHING = Price(Estimate(0.0, 0.0, 0.0), "launch")


def _price(work: Work, physics: gpu.Physics, times: Times, at: int) -> Price:
    value, low, high = (float(t[at]) for t in times[:3])
    occupancy = float(physics.occupancy[at])
    if work.flop is None:
        return Price(Estimate(value, low, 10 * high), "unknown", occupancy, times.shared)
    bound: Bound = "compute" if physics.compute_s[at] / occupancy >= physics.memory_s[at] else "memory"
    if physics.roofline_s[at] < gpu.LAUNCH_FLOOR_S.value / 2:
        bound = "launch"
    return Price(Estimate(value, low, high), bound, occupancy, times.shared)


PREDICTORS = Registry(
    "predictor",
    {
        "gnomon": "gnomon.forecast.predictors:Gnomon",
        "physics": "gnomon.forecast.predictors:Physics",
        "roofline": "gnomon.forecast.baselines.roofline:Roofline",
        "linear-regression": "gnomon.forecast.baselines.linear:LinearRegression",
        "habitat": "gnomon.forecast.baselines.habitat:Habitat",
        "neusight": "gnomon.forecast.baselines.neusight:NeuSight",
    },
)
