"""Measured kernels of one kind on one device, and what the way of measuring added."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from gnomon.devices.device import Device
from gnomon.forecast.kernels import Array, Kernels


class Host(NamedTuple):
    """What a call costs the host that times it: a kernel shorter than `call_s` hides behind it, the launch never."""

    call_s: float
    launch_s: float


NO_HOST = Host(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Samples:
    """Kernels of one kind and precision on one device with what was measured.

    latency_s: as measured. split: 'train' or 'test' per kernel. what: the class as people call it. host: what the way
    of measuring added. is_warm: the call was repeated on the same operands, which may lie in the last cache.
    """

    device: Device
    kernels: Kernels
    latency_s: Array
    split: Array
    what: str
    host: Host = NO_HOST
    is_warm: bool = False

    def __len__(self) -> int:
        return len(self.latency_s)

    def take(self, rows: Array) -> "Samples":
        return replace(self, kernels=self.kernels.take(rows), latency_s=self.latency_s[rows], split=self.split[rows])

    def measured(self, kernel_s: Array) -> Array:
        """What this way of measuring shows of kernels that take `kernel_s` on the device."""
        return np.maximum(kernel_s + self.host.launch_s, self.host.call_s)

    @property
    def is_visible(self) -> Array:
        """Kernels long enough to be seen behind the host."""
        return self.latency_s > 1.5 * self.host.call_s
