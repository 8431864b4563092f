"""What the baselines have in common: they price GPUs only, and without an interval."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gnomon.core.errors import UsageError
from gnomon.devices.device import Device
from gnomon.forecast import gpu
from gnomon.forecast.kernels import Array, Kernels
from gnomon.forecast.predictors import Physics, Times
from gnomon.forecast.price import Price
from gnomon.forecast.work import Work


class Baseline(Physics, ABC):
    """A predictor that gives one number per kernel. A subclass says `seconds`."""

    def prices(self, works: Sequence[Work], device: Device) -> list[Price]:
        """The price of every operator, in order. Raises UsageError for a CPU and for a precision the GPU lacks."""
        if device.kind != "gpu":
            raise UsageError(f"the baseline {self.name} prices GPUs; {device.name} is a {device.kind}. Take another "
                             "predictor for it: gnomon or physics")  # fmt: skip
        return super().prices(works, device)

    def common_spread(self, device: Device) -> float:
        return 0.0

    def times(self, kernels: Kernels, device: Device, physics: gpu.Physics, is_warm: bool = False) -> Times:
        seconds = self.seconds(kernels, device, physics)
        return Times(seconds, seconds, seconds, 0.0)

    @abstractmethod
    def seconds(self, kernels: Kernels, device: Device, physics: gpu.Physics) -> Array:
        """Time of each kernel on the device, without the host."""
