"""Predictors by name: each prices operators on a device. `gnomon` is ours; the others are there to be compared with."""

from collections.abc import Sequence
from typing import Protocol

from gnomon.core.registry import Registry
from gnomon.devices.device import Device
from gnomon.forecast import cpu, gpu
from gnomon.forecast.collectives import transfer_time
from gnomon.forecast.kernels import group
from gnomon.forecast.price import Price
from gnomon.forecast.record import Bound, Estimate
from gnomon.forecast.work import Work


class Predictor(Protocol):
    """name: what a forecast says made it, with a version."""

    name: str

    def prices(self, works: Sequence[Work], device: Device) -> list[Price]:
        """The price of every operator, in order. Raises UsageError when the device lacks a precision."""
        ...


def price_all(predictor: Predictor, works: Sequence[Work], device: Device) -> list[Price]:
    """The predictor's prices; what moves between devices is priced by `collectives`, whichever predictor it is."""
    local = iter(predictor.prices([work for work in works if work.transfer is None], device))
    return [
        next(local) if work.transfer is None else Price(transfer_time(work.transfer, device), "communication")
        for work in works
    ]


class Physics:
    """Data sheets and constants alone, nothing fitted."""

    name = "physics-2"

    def prices(self, works: Sequence[Work], device: Device) -> list[Price]:
        if device.kind == "cpu":
            return [cpu.price(work, device) for work in works]
        prices = [_NOTHING] * len(works)
        for positions, kernels in group(works):
            times = gpu.physics(kernels, device)
            for at, i in enumerate(positions):
                prices[i] = _price(works[i], times, at)
        return prices


_NOTHING = Price(Estimate(0.0, 0.0, 0.0), "launch")


def _price(work: Work, times: gpu.Physics, at: int) -> Price:
    floor = gpu.LAUNCH_FLOOR_S
    value, low, high = (float(t[at]) for t in (times.seconds, times.low_s, times.high_s))
    low, high = low + floor.low, high + floor.high
    occupancy = float(times.occupancy[at])
    if work.flop is None:
        return Price(Estimate(value + floor.value, low, 10 * high), "unknown", occupancy)
    bound: Bound = "compute" if times.compute_s[at] / occupancy >= times.memory_s[at] else "memory"
    return Price(Estimate(value + floor.value, low, high), "launch" if value < floor.value else bound, occupancy)


PREDICTORS = Registry("predictor", {"physics": "gnomon.forecast.predictors:Physics"})
