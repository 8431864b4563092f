"""Predictors by name: each prices operators on a device. `gnomon` is ours; the others are there to be compared with."""

from collections.abc import Sequence
from typing import Protocol

from gnomon.core.registry import Registry
from gnomon.devices.device import Device
from gnomon.forecast import cpu, gpu
from gnomon.forecast.collectives import transfer_time
from gnomon.forecast.price import Price
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

    name = "physics-1"

    def prices(self, works: Sequence[Work], device: Device) -> list[Price]:
        price = cpu.price if device.kind == "cpu" else gpu.price
        return [price(work, device) for work in works]


PREDICTORS = Registry("predictor", {"physics": "gnomon.forecast.predictors:Physics"})
