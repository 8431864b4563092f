"""The roofline as a predictor, nothing fitted: S. Williams et al., CACM 2009, doi 10.1145/1498765.1498785."""

from gnomon.devices.device import Device
from gnomon.forecast import gpu
from gnomon.forecast.baselines.baseline import Baseline
from gnomon.forecast.kernels import Array, Kernels


class Roofline(Baseline):
    """t = max(FLOP / peak, bytes / bandwidth): every kernel at the better of the two peaks, a bound from below."""

    name = "roofline-1"

    def seconds(self, kernels: Kernels, device: Device, physics: gpu.Physics) -> Array:
        return physics.roofline_s
