"""What physics gets wrong, learned on GPUs that were measured and carried over to one that was not.

Each measured GPU has one expert per kind of kernel: the error of `gpu.physics` on it, as a level (how well this GPU's
library does at all) and a forest over the shape of the kernel. A target's correction is the experts' mean, weighted by
how near each GPU is in what a data sheet says of its generation: process, cache per unit, matrix units, vendor. It is
bounded by a factor of three and fades where every expert is far away. Leaving a GPU out means leaving its experts out;
no expert has seen another GPU's kernels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gnomon.devices.device import Device
from gnomon.forecast.forest import Forest
from gnomon.forecast.gpu import Physics, features
from gnomon.forecast.kernels import Array, Kernels, Kind

BOUND = math.log(3.0)
_SCALES = (0.5, 1.2)  # distance 1 in log process, log (cache per unit)
_OTHER_VENDOR = 4.0
_OTHER_GENERATION = 1.5
_FADE = 4.0  # distance at which half of a correction is believed
FAR = 3.0  # beyond, a forecast says so
_HEARD = 1e-3  # an expert with less weight is not asked


@dataclass(frozen=True, slots=True)
class Traits:
    """Where a device stands among others. numbers: logarithms of process and of cache per unit.

    has_matrix_units: tensor or matrix cores; libraries of the generation that has none are others.
    """

    vendor: str
    has_matrix_units: bool
    numbers: tuple[float, float]

    def distance(self, other: "Traits") -> float:
        apart = [(a - b) / scale for a, b, scale in zip(self.numbers, other.numbers, _SCALES, strict=True)]
        apart.append(_OTHER_VENDOR * (self.vendor.lower() != other.vendor.lower()))
        apart.append(_OTHER_GENERATION * (self.has_matrix_units != other.has_matrix_units))
        return math.hypot(*apart)


def traits(device: Device) -> Traits:
    """What is said of a device's generation; usual values where its file says nothing."""
    process = device.process_m.value if device.process_m else 7e-9
    cache = device.cache_bytes.value if device.cache_bytes else 4e6
    half = device.peak_flop_s.get("float16") or device.peak_flop_s.get("bfloat16")
    has_matrix_units = half is not None and half.value > 3 * device.vector("float32")
    return Traits(device.vendor, has_matrix_units, (math.log(process), math.log(cache / device.units.value)))


@dataclass(frozen=True, slots=True)
class Expert:
    """One measured GPU's error on one kind of kernel. level: median of log(measured / physics) less the forest's."""

    device: str
    traits: Traits
    level: float
    forest: Forest

    def error(self, features: Array) -> Array:
        """log(measured / physics) that this GPU would show."""
        return np.asarray(self.level + self.forest.predict(features))


class Correction(NamedTuple):
    """log_factor: by which log physics is off, per kernel. distance: to the nearest expert. weights: of each expert."""

    log_factor: Array
    distance: float
    weights: Mapping[str, float]


FAMILY = {
    "float64": "single", "float32": "single", "tf32": "half", "float16": "half", "bfloat16": "half",
    "float8": "eighth", "int8": "eighth", "float4": "eighth",
}  # fmt: skip


def family(kind: Kind, precision: str) -> str:
    """The name under which experts of kernels like these are kept."""
    return f"{kind}/{FAMILY[precision]}"


def weigh(target: Traits, experts: Sequence[Expert]) -> Array:
    """Weights that sum to one; the nearest expert has the most, one that is a distance of 1 farther a seventh of it."""
    distances = np.array([target.distance(expert.traits) for expert in experts])
    weights = np.exp(-2.0 * (distances - distances.min()))
    return np.asarray(weights / weights.sum())


def nearest(target: Traits, experts: Mapping[str, Sequence[Expert]]) -> tuple[str, float]:
    """The measured GPU that is nearest to `target`, and its distance; infinite where there is none."""
    everyone = [expert for members in experts.values() for expert in members]
    if not everyone:
        return "none", math.inf
    found = min(everyone, key=lambda expert: target.distance(expert.traits))
    return found.device, target.distance(found.traits)


def correct(kernels: Kernels, physics: Physics, device: Device, experts: Sequence[Expert]) -> Correction:
    """The correction for kernels of one kind on `device`, given their physics; none where nobody measured the kind."""
    if not experts:
        return Correction(np.zeros(len(kernels)), math.inf, {})
    target = traits(device)
    distance = min(target.distance(expert.traits) for expert in experts)
    weights = weigh(target, experts)
    columns = features(kernels, device, physics)
    mean = np.zeros(len(kernels))
    for weight, expert in zip(weights, experts, strict=True):
        if weight > _HEARD:
            mean += weight * expert.error(columns)
    believed = 1 / (1 + (distance / _FADE) ** 2)
    return Correction(
        np.clip(mean * believed, -BOUND, BOUND),
        distance,
        {expert.device: float(w) for w, expert in zip(weights, experts, strict=True)},
    )
