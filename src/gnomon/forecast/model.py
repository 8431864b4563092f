"""The fitted predictor: experts and spreads, as shipped in `data/` or fitted from a pack. No pickle, no LightGBM."""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gnomon.core.errors import DamagedData
from gnomon.forecast.forest import Forest
from gnomon.forecast.kernels import Array
from gnomon.forecast.residual import Expert, Traits

SHIPPED = Path(__file__).parent / "data"
_PER_DISTANCE = 0.05  # growth of a spread for each step away from the nearest measured GPU


class Spread(NamedTuple):
    """Standard deviations of log(measured / forecast): common to a GPU's kernels of a kind, and each kernel's own."""

    shared: float
    own: float

    @property
    def whole(self) -> float:
        return math.hypot(self.shared, self.own)


@dataclass(frozen=True, slots=True)
class Model:
    """experts, spreads: by `residual.family`. about: recipe, digests of the data and attribution, for people."""

    experts: Mapping[str, Sequence[Expert]]
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def devices(self) -> set[str]:
        """Names of the GPUs whose kernels the model has seen."""
        return {expert.device for experts in self.experts.values() for expert in experts}

    def spread(self, family: str, distance: float) -> Spread:
        """The spread at a `distance` from the nearest expert."""
        shared, own = self.spreads.get(family, Spread(0.2, 0.2))
        return Spread(shared * (1 + _PER_DISTANCE * min(distance, 4.0)), own)

    def save(self, folder: Path) -> None:
        """model.npz (arrays) and model.json (everything a person may want to read) in `folder`."""
        arrays: dict[str, Array] = {}
        experts: list[dict[str, Any]] = []
        for family, members in sorted(self.experts.items()):
            for expert in members:
                key = f"{len(experts):03d}"
                arrays |= {f"{key}.{name}": values for name, values in expert.forest.arrays().items()}
                t = expert.traits
                experts.append({
                    "family": family, "device": expert.device, "level": expert.level, "vendor": t.vendor,
                    "has_matrix_units": t.has_matrix_units, "numbers": list(t.numbers), "arrays": key,
                })  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / "model.npz", **arrays)  # type: ignore[arg-type]
        document = {"about": dict(self.about), "spreads": {k: list(v) for k, v in self.spreads.items()}}
        text = json.dumps({**document, "experts": experts}, indent=1, sort_keys=True)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> Model:
    """The model that `save` wrote. Raises DamagedData when a part is missing or does not fit the other."""
    try:
        document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        with np.load(folder / "model.npz", allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        experts: dict[str, list[Expert]] = {}
        for entry in document["experts"]:
            names = ("roots", "feature", "threshold", "left", "right", "value", "depth")
            forest = Forest.from_arrays({name: arrays[f"{entry['arrays']}.{name}"] for name in names})
            numbers = tuple(float(n) for n in entry["numbers"])
            traits = Traits(entry["vendor"], bool(entry["has_matrix_units"]), numbers)  # type: ignore[arg-type]
            expert = Expert(entry["device"], traits, float(entry["level"]), forest)
            experts.setdefault(entry["family"], []).append(expert)
        spreads = {name: Spread(*values) for name, values in document["spreads"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedData(f"{folder}: the fitted predictor cannot be read: {error}. Install Gnomon again, or fit one "
                          "with gnomon forecast fit") from None  # fmt: skip
    return Model(experts, spreads, document["about"])


@functools.cache
def shipped() -> Model:
    """The model that comes with Gnomon."""
    return load(SHIPPED)
