"""Fits a baseline on measured kernels, and keeps the fit on this machine when asked. Nothing of it is shipped."""

import math
import zipfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from gnomon.core.errors import DamagedData, NotRunnable, UsageError
from gnomon.core.paths import home
from gnomon.devices.device import Device
from gnomon.forecast import gpu
from gnomon.forecast.baselines.baseline import Baseline
from gnomon.forecast.kernels import Array, Kernels
from gnomon.forecast.pack.samples import Samples
from gnomon.forecast.predictors import PREDICTORS
from gnomon.forecast.residual import family

_LEAST_ROWS = 30
_LEAST_S = 1e-7
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Training:
    """rows: of one kind, all GPUs together. epochs, batch: over 80 % of them, the rest choose the best epoch.

    rate: highest learning rate; it rises and falls in one cycle. width, depth: of the network.
    """

    rows: int = 8000
    epochs: int = 30
    batch: int = 256
    rate: float = 2e-3
    width: int = 128
    depth: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """What a baseline has learned: arrays by `residual.family`. devices: names of the GPUs that it has seen."""

    devices: tuple[str, ...]
    families: Mapping[str, Arrays]

    def save(self, path: Path) -> None:
        arrays = {f"{name}|{key}": value for name, held in self.families.items() for key, value in held.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, devices=np.array(self.devices), **arrays)  # type: ignore[arg-type]


def load(path: Path) -> Fit:
    """The fit that `save` wrote. Raises DamagedData when the file is no such fit."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            families: dict[str, dict[str, Array]] = {}
            for name in archive.files:
                if name != "devices":
                    kind, _, key = name.partition("|")
                    families.setdefault(kind, {})[key] = archive[name]
            return Fit(tuple(str(name) for name in archive["devices"]), families)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DamagedData(f"{path}: the fitted baseline cannot be read: {error}. Delete it and fit it again") from None


class Rows(NamedTuple):
    """Kernels of one GPU to learn from. seconds: as measured, without what the host adds."""

    device: Device
    kernels: Kernels
    physics: gpu.Physics
    seconds: Array


class FittedBaseline(Baseline):
    """A baseline that learns from measured kernels; kinds that nobody measured are priced by the roofline.

    fit: what was learned; by default what `fit_baseline(..., keep=True)` kept on this machine. Raises NotRunnable when
    nothing was kept.
    """

    training: ClassVar[Training] = Training()

    def __init__(self, fit: Fit | None = None) -> None:
        self.fit = fit or _kept(self.name)

    @classmethod
    @abstractmethod
    def learn(cls, members: Sequence[Samples], training: Training) -> Arrays:
        """What one family of kernels teaches."""

    def seconds(self, kernels: Kernels, device: Device, physics: gpu.Physics) -> Array:
        learned = self.fit.families.get(family(kernels.kind, kernels.precision))
        return physics.roofline_s if learned is None else self.learned_seconds(learned, kernels, device, physics)

    @abstractmethod
    def learned_seconds(self, learned: Arrays, kernels: Kernels, device: Device, physics: gpu.Physics) -> Array:
        """Time of each kernel of a kind that was measured."""


def fit_baseline(
    name: str, samples: Sequence[Samples], training: Training | None = None, keep: bool = False
) -> FittedBaseline:
    """The baseline `name` of the registry, fitted on `samples`.

    training: how long and on how many rows; the baseline's own by default. keep: for `gnomon forecast --predictor` on
    this machine. The same samples and training give the same fit. Raises UnknownName, UsageError when the baseline is
    not one that is fitted or the samples are too few.
    """
    baseline = PREDICTORS.get(name)
    if not (isinstance(baseline, type) and issubclass(baseline, FittedBaseline)):
        raise UsageError(f"{name} is not fitted by fit_baseline; wanted one of habitat, linear-regression, neusight")
    members: dict[str, list[Samples]] = {}
    for one in samples:
        seen = one.take(np.flatnonzero(one.is_visible))
        if len(seen) >= _LEAST_ROWS:
            members.setdefault(family(one.kernels.kind, one.kernels.precision), []).append(seen)
    if not members:
        raise UsageError(f"{name}: wanted {_LEAST_ROWS} kernels or more of one kind on a GPU that outlast the host; "
                         f"got none in {len(samples)} groups")  # fmt: skip
    devices = sorted({one.device.name for group in members.values() for one in group})
    chosen = training or baseline.training
    fit = Fit(tuple(devices), {kind: baseline.learn(group, chosen) for kind, group in sorted(members.items())})
    if keep:
        fit.save(_path(baseline.name))
    return baseline(fit)


def spread_evenly(members: Sequence[Samples], most: int, seed: int) -> list[Rows]:
    """At most `most` kernels, from every GPU alike, with their physics and what they took on the device itself."""
    share = math.ceil(most / len(members))
    found = []
    for one in members:
        rows = np.arange(len(one))
        if len(rows) > share:
            rows = np.sort(np.random.default_rng(seed).choice(rows, share, replace=False))
        chosen = one.take(rows)
        seconds = np.maximum(chosen.latency_s - chosen.host.launch_s, _LEAST_S)
        found.append(Rows(one.device, chosen.kernels, gpu.physics(chosen.kernels, one.device), seconds))
    return found


def _path(name: str) -> Path:
    return home() / "baselines" / f"{name}.npz"


def _kept(name: str) -> Fit:
    path = _path(name)
    if not path.is_file():
        raise NotRunnable(
            f"the baseline {name} is not shipped and none is kept in {path.parent}; fit it from a pack of measured "
            "kernels first: gnomon.forecast.baselines.fitted.fit_baseline(..., keep=True)"
        )
    return load(path)
