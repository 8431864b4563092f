"""From a name or a file to a Task: every reference followed, every default filled, every file pinned, no code run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnomon.spec import task
from gnomon.spec.lock import Lock
from gnomon.spec.manifest import TaskSpec, without_defaults
from gnomon.spec.resolve.assemble import assemble, check_options
from gnomon.spec.resolve.attempt import Attempt
from gnomon.spec.resolve.references import combine, extend, find_part, open_manifest, split_combination


@dataclass(frozen=True, slots=True)
class Resolution:
    """A task and how it came about: which file, which version, which size, and why."""

    task: task.Task
    decisions: tuple[str, ...]


def resolve(
    target: str | Path,
    *,
    dims: Mapping[str, int] | None = None,
    dtype: str | None = None,
    mode: str | None = None,
    device: str = "cpu",
    trust: bool = False,
    search: Sequence[Path] = (),
    host: Mapping[str, Any] | None = None,
) -> task.Task:
    """The task that `target` means: a manifest's path, a task's name (`name@constraint`), a configuration of
    transformers (`config.json`, or the folder that it is in), or `package.module:callable`. Of a task with a matrix,
    `target#2` is the second combination.

    dims: sizes by name, over those of the manifest. dtype, mode: instead of the manifest's. device: where it will run.
    trust: code beside the manifest may be named. search: further folders with manifests. host: facts of the machine as
    in `spec.require.facts`; this machine when None.
    Raises one error that lists all that is wrong: ManifestError (exit code 2), else DamagedData for a file whose
    SHA-256 differs (4), else NotRunnable for what this machine lacks (3). When nothing else is wrong it is one of
    MissingReference, VersionConflict, ReferenceCycle (all 2) and UnsatisfiedHardware (3). UnknownName when no task is
    called so.
    """
    return explain(
        target, dims=dims, dtype=dtype, mode=mode, device=device, trust=trust, search=search, host=host
    ).task  # fmt: skip


def explain(
    target: str | Path,
    *,
    dims: Mapping[str, int] | None = None,
    dtype: str | None = None,
    mode: str | None = None,
    device: str = "cpu",
    trust: bool = False,
    search: Sequence[Path] = (),
    host: Mapping[str, Any] | None = None,
) -> Resolution:
    """As `resolve`, with every decision on the way."""
    attempt = Attempt(trust, tuple(search), host)
    check_options(attempt, dtype, mode, device)
    return Resolution(assemble(attempt, target, dict(dims or {}), dtype, mode, device), tuple(attempt.decisions))


def task_spec(target: str | Path, *, trust: bool = False, search: Sequence[Path] = ()) -> TaskSpec:
    """What the manifest of a task says, merged over those that it extends; no part is followed.

    Raises ManifestError, and UnknownName when no task is called so.
    """
    attempt = Attempt(trust, tuple(search), None)
    return extend(attempt, *open_manifest(attempt, target))[0]


def resolve_lock(lock: Lock, *, trust: bool = False, host: Mapping[str, Any] | None = None) -> task.Task:
    """The task that a lock describes, as it is now; `check_lock` says what changed. Raises as `resolve` does."""
    return resolve(
        Path(lock.target) if Path(lock.target).is_absolute() else lock.target,
        dims=lock.dims,
        dtype=lock.dtype,
        mode=lock.mode,
        device=lock.device,
        trust=trust,
        search=[Path(folder) for folder in lock.search],
        host=host,
    )


def said(target: str | Path, *, trust: bool = False, search: Sequence[Path] = ()) -> dict[str, Any]:
    """What a task says, by aspect: 'model', 'dataset', 'software', 'hardware' and 'setting', as plain data.

    References are followed, defaults are left out, nothing is looked for on this machine. A part that is not there is
    {}. Raises as `resolve` does for what cannot be found or read.
    """
    attempt = Attempt(trust, tuple(search), None)
    target, combination = split_combination(target)
    loaded, manifest = open_manifest(attempt, target)
    spec, origin = extend(attempt, loaded, manifest)
    places: dict[str, tuple[str | int, ...]] = {}
    if spec.matrix is not None or combination is not None:
        spec, places = combine(attempt, spec, combination, loaded)
        origin |= dict.fromkeys(places, origin.get("matrix", loaded))
    aspects: dict[str, Any] = {}
    for kind in ("Model", "Dataset", "Software", "Hardware"):
        key = kind.lower()
        place = places.get(key, ("spec", key))
        part = find_part(attempt, kind, getattr(spec, key), origin.get(key, loaded), place)
        aspects[key] = without_defaults(part.spec) if part is not None else {}
    attempt.stop_if_failed()
    setting = without_defaults(spec)
    aspects["setting"] = {key: value for key, value in setting.items() if key not in (*aspects, "extends", "matrix")}
    return aspects
