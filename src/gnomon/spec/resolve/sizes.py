"""A size for every dimension of a task."""

from collections.abc import Mapping

from gnomon.core.errors import (
    ManifestError,
    did_you_mean,
)
from gnomon.spec.grammar import LARGEST_SIZE
from gnomon.spec.load import Loaded
from gnomon.spec.manifest import (
    Input,
    TaskSpec,
)
from gnomon.spec.resolve.attempt import Attempt, Part
from gnomon.spec.shapes import unify


def solve_sizes(
    attempt: Attempt, loaded: Loaded, spec: TaskSpec, model: Part, dataset: Part | None, overrides: dict[str, int]
) -> dict[str, int]:
    """A size for every dimension: asked for, else of the task, else of the model, else solved from the dataset."""
    inputs: dict[str, Input] = {i.name: i for i in model.spec.inputs}
    used = {axis for i in inputs.values() for axis in i.shape if isinstance(axis, str)}
    used |= {bound for i in inputs.values() for bound in (i.low, i.high) if isinstance(bound, str)}
    known = {**model.spec.dims, **spec.dims}
    names = sorted({*used, *known})
    for name, size in overrides.items():
        if name not in names and inputs:  # a bare callable without declared inputs takes any size
            came = f"{did_you_mean(name, names)} Known: {', '.join(names) or 'none'}"
            attempt.fail(ManifestError, f"{loaded.path}: the task has no dimension {name!r}.{came}")
        elif isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_SIZE:
            attempt.fail(ManifestError, f"dimension {name}: wanted a size from 1 to {LARGEST_SIZE:,}, got {size!r}")
    sizes = {**known, **overrides}
    if dataset is not None:
        sizes = agree_on_sizes(attempt, inputs, dataset, sizes)
    for name in sorted(used - sizes.keys()):
        attempt.fail(
            ManifestError,
            f"{loaded.path}: dimension {name!r} has no size; give it in spec.dims or with --dim {name}=SIZE",
        )
    for name, largest in model.spec.max_dims.items():
        if sizes.get(name, 0) > largest:
            where = model.where(f"max_dims.{name}")
            attempt.fail(ManifestError, f"{where}: the model takes {name} up to {largest}, got {sizes[name]}")
    for name in sorted(sizes):
        came = (
            "asked for"
            if name in overrides
            else "task"
            if name in spec.dims
            else "model"
            if name in known
            else "dataset"
        )
        attempt.decide(f"dimension {name} = {sizes[name]} ({came})")
    return sizes


def agree_on_sizes(
    attempt: Attempt, inputs: Mapping[str, Input], dataset: Part, sizes: dict[str, int]
) -> dict[str, int]:
    provides = dataset.spec.provides
    for name, given in provides.items():
        where = dataset.where(f"provides.{name}")
        wanted = inputs.get(name)
        if wanted is None:
            if inputs:
                near = did_you_mean(name, inputs)
                attempt.fail(
                    ManifestError, f"{where}: the model has no input {name!r}.{near} Known: {', '.join(inputs)}"
                )
            continue
        if wanted.dtype != given.dtype:
            attempt.fail(ManifestError, f"{where}: the model wants {wanted.dtype}, the dataset provides {given.dtype}")
        for key in ("layout", "semantics"):
            takes, gives = getattr(wanted, key), getattr(given, key)
            if takes and gives and takes != gives:
                attempt.fail(ManifestError, f"{where}.{key}: the model wants {takes!r}, the dataset provides {gives!r}")
        try:
            sizes = unify(wanted.shape, given.shape, sizes)
        except ValueError as error:
            attempt.fail(ManifestError, f"{where}: {error}")
    if provides:
        for name in inputs.keys() - provides.keys():
            attempt.fail(ManifestError, f"{dataset.where('provides')}: the model's input {name!r} is not provided")
    return sizes
