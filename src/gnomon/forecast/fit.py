"""Fits the experts of `residual.py` from a pack of measured kernels: one forest per kind, precision and GPU."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.core.digest import file_digest
from gnomon.core.errors import NotRunnable, UsageError
from gnomon.forecast import forest, gpu
from gnomon.forecast.kernels import Array
from gnomon.forecast.model import Model, Spread
from gnomon.forecast.pack import read_pack
from gnomon.forecast.pack.samples import Samples
from gnomon.forecast.price import NINE_IN_TEN
from gnomon.forecast.residual import Expert, Forest, correct, family, traits

ROWS = 24_000  # per GPU and kind
TREES = 80
_SETTINGS = {
    "objective": "l1", "num_leaves": 24, "max_depth": 7, "learning_rate": 0.12, "min_data_in_leaf": 20,
    "feature_fraction": 0.7, "seed": 1, "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip


def expert(samples: Samples, seed: int = 0) -> Expert | None:
    """The error of physics on one GPU and kind; None when too few kernels are long enough to be seen."""
    rows = np.flatnonzero(samples.is_visible)
    if len(rows) < 100:
        return None
    rows = _sample(rows, ROWS, seed)
    chosen = samples.take(rows)
    device = chosen.device
    physics = gpu.physics(chosen.kernels, device)
    features = gpu.features(chosen.kernels, device, physics)
    target = error(chosen, physics)
    # 'test' before 'train': shapes of real models, measured in the session that timed the models, give the level
    sessions = [np.flatnonzero(chosen.split == name) for name in sorted(set(chosen.split))]
    offsets = np.zeros(len(rows))
    fitted = None
    for _ in range(2):  # levels of sessions and the shape that they share, in turn
        left = target - (fitted.predict(features) if fitted else 0.0)
        for session in sessions:
            offsets[session] = np.median(left[session])
        fitted = _forest(features, target - offsets)
    assert fitted is not None
    return Expert(device.name, traits(device), float(offsets[sessions[0][0]]), fitted)


def error(samples: Samples, physics: gpu.Physics) -> Array:
    """log(measured / physics) of kernels, without what the host added."""
    kernel_s = np.maximum(samples.latency_s - samples.host.launch_s, 1e-7)
    return np.asarray(np.log(kernel_s / (physics.seconds + gpu.floor_s(samples.kernels.kind, samples.device).value)))


def _sample(rows: Array, most: int, seed: int) -> Array:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _forest(features: Array, target: Array) -> Forest:
    try:
        import lightgbm
    except ImportError:
        raise NotRunnable("fitting the predictor needs LightGBM: pip install 'gnomon[fit]'") from None
    booster = lightgbm.train(_SETTINGS, lightgbm.Dataset(features, target), TREES)
    return forest.from_lightgbm(booster.dump_model())


def experts(samples: Iterable[Samples]) -> dict[str, list[Expert]]:
    """All experts that the samples allow, by `residual.family`."""
    found: dict[str, list[Expert]] = {}
    for one in samples:
        made = expert(one)
        if made is not None:
            found.setdefault(family(one.kernels.kind, one.kernels.precision), []).append(made)
    return found


def fit(samples: Sequence[Samples], about: Mapping[str, Any] | None = None) -> Model:
    """The model of these samples: their experts, and how far each misses a GPU that it has not seen."""
    found = experts(samples)
    return Model(found, spreads(samples, found), about or {})


def fit_pack(pack: Path, progress: Callable[[str], None] = lambda _: None) -> Model:
    """The model of a pack's devices whose role is 'train'. Raises UsageError when nothing in it can be fitted."""
    content = read_pack(pack)
    samples = [one for one in content.samples if content.role(one.device.name) == "train"]
    if not samples:
        raise UsageError(f"{pack}: no kernels of a device whose role is 'train'; nothing to fit")
    progress(f"fitting {len(samples)} groups of kernels, {sum(map(len, samples)):,} in all")
    return fit(samples, _about(pack))


def _about(pack: Path) -> dict[str, Any]:
    """How the model came to be: recipe, versions, what it was fitted on and whom to thank for that."""
    import lightgbm

    files = sorted(path for path in pack.rglob("*") if path.suffix in (".parquet", ".csv"))
    return {
        "recipe": {"trees": TREES, "rows_per_device_and_kind": ROWS, **_SETTINGS},
        "lightgbm": lightgbm.__version__,
        "data": {path.relative_to(pack).as_posix(): file_digest(path) for path in files},
        "attribution": ATTRIBUTION,
    }


ATTRIBUTION = (
    "Fitted on measurements published by NeuSight (sitar-lab/NeuSight, MIT licence, (c) 2025 Georgia Institute of "
    "Technology and Microsoft Corporation) and aiconfigurator-core (Apache License 2.0, (c) 2025-2026 NVIDIA "
    "CORPORATION & AFFILIATES). It holds no measurement, only regression trees."
)


def without(model: Model, samples: Sequence[Samples], device: str) -> Model:
    """The model as if `device` had never been measured: neither its experts nor its errors enter.

    A device that the model has not seen leaves it as it is: what was measured on it may not even widen an interval.
    """
    if device not in model.devices:
        return model
    kept = {name: [e for e in members if e.device != device] for name, members in model.experts.items()}
    left = Model({name: members for name, members in kept.items() if members}, about=model.about)
    assert device not in left.devices
    others = [one for one in samples if one.device.name in left.devices]
    return replace(left, spreads=spreads(others, left.experts))


def spreads(samples: Sequence[Samples], experts: Mapping[str, Sequence[Expert]]) -> dict[str, Spread]:
    """By family, how the experts of all other GPUs miss each GPU: its median error, and the scatter about that."""
    biases: dict[str, list[float]] = {}
    scatters: dict[str, list[float]] = {}
    for one in samples:
        name = family(one.kernels.kind, one.kernels.precision)
        others = [expert for expert in experts.get(name, ()) if expert.device != one.device.name]
        rows = np.flatnonzero(one.is_visible & (one.split == "test"))
        rows = rows if len(rows) >= _FEW else np.flatnonzero(one.is_visible)
        if not others or len(rows) < _FEW:
            continue
        judged = one.take(_sample(rows, _JUDGED, seed=1))
        physics = gpu.physics(judged.kernels, judged.device)
        missed = error(judged, physics) - correct(judged.kernels, physics, judged.device, others).log_factor
        biases.setdefault(name, []).append(float(np.median(missed)))
        scatters.setdefault(name, []).append(float(np.quantile(np.abs(missed - np.median(missed)), 0.9) / NINE_IN_TEN))
    return {
        name: Spread(
            max(math.sqrt(np.mean(np.square(found))), _LEAST_SHARED),
            float(np.mean(scatters[name])),
        )
        for name, found in biases.items()
    }


_FEW = 30
_JUDGED = 4000
_LEAST_SHARED = 0.08  # two GPUs that agree by chance do not make a third one certain
