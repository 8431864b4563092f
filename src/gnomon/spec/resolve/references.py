"""Manifests found, followed, extended and combined."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gnomon.core.errors import (
    GnomonError,
    ManifestError,
    MissingReference,
    ReferenceCycle,
    UnknownName,
    did_you_mean,
)
from gnomon.core.records import Problem
from gnomon.spec import adopt
from gnomon.spec.combine import chosen, combinations
from gnomon.spec.find import Found, find, inside, task_names
from gnomon.spec.grammar import REFERENCE, TARGET
from gnomon.spec.load import Loaded, load
from gnomon.spec.manifest import (
    Manifest,
    PartFile,
    Reference,
    TaskSpec,
    spec_digest,
)
from gnomon.spec.resolve.attempt import Attempt, Part

_MERGED = ("dims", "quality", "protocol", "training")  # tables that `extends` merges key by key


_SUFFIXES = (".yaml", ".yml", ".json")


def open_manifest(attempt: Attempt, target: str | Path) -> tuple[Loaded, Manifest]:
    text = str(target)
    path = Path(target)
    if (path / "config.json").is_file():  # what a download of a model looks like
        path = path / "config.json"
    if _is_file(target):
        loaded = load(path)
        if isinstance(loaded.document, Mapping) and "apiVersion" not in loaded.document and path.suffix == ".json":
            loaded = replace(loaded, document=adopt.from_huggingface(loaded.document, path), lines={})
            attempt.decide(f"task: a configuration of transformers, {path}")
        else:
            attempt.decide(f"task: the file {path}")
    elif TARGET.holds(text):
        document = adopt.from_callable(text, Path())
        loaded = Loaded(Path(text), "", document, {})
        attempt.decide(f"task: the callable {text}")
    else:
        if not REFERENCE.holds(text):
            known = task_names(attempt.search)
            raise UnknownName(
                f"wanted a task's name, a manifest's path or 'package.module:callable', got {text[:80]!r}."
                f"{did_you_mean(text, known)} Known tasks: {', '.join(known)}"
            )
        found = find("Task", text, None, attempt.search)
        loaded = found.loaded
        attempt.decide(f"task: {found.manifest.identity} from {found.path}, {found.why}")
    manifest = loaded.manifest()
    if manifest.kind != "Task":
        raise ManifestError(f"{loaded.at(('kind',))}: kind: wanted a Task, got a {manifest.kind}")
    return loaded, manifest


def follow(attempt: Attempt, kind: str, part: Reference | PartFile, folder: Path, where: str) -> Found:
    """The manifest that a reference or a path means. Raises ManifestError with the place that refers."""
    try:
        if isinstance(part, Reference):
            return find(kind, part.ref, folder, attempt.search)
        loaded = load(inside(folder, part.file))
        manifest = loaded.manifest()
    except GnomonError as error:
        first, *rest = str(error).splitlines()
        told = type(error) if isinstance(error, ManifestError) else ManifestError
        if isinstance(error, UnknownName):
            told = MissingReference
        raise told("\n".join([f"{where}: {first}", *rest])) from error
    if manifest.kind != kind:
        raise ManifestError(f"{where}: wanted a {kind}, {part.file} is a {manifest.kind}")
    return Found(manifest, loaded, "named by its path")


def extend(attempt: Attempt, loaded: Loaded, manifest: Manifest) -> tuple[TaskSpec, dict[str, Loaded]]:
    """The task's spec over those that it extends, and the file that each of its keys comes from."""
    chain, here, current = [loaded.path.resolve()], loaded, manifest
    document: dict[str, Any] = dict(loaded.document["spec"])
    origin = dict.fromkeys(document, loaded)
    while current.spec.extends is not None:
        where = f"{here.at(('spec', 'extends'))}: spec.extends"
        found = follow(attempt, "Task", current.spec.extends, here.path.parent, where)
        if found.path.resolve() in chain:
            names = " -> ".join(p.name for p in [*chain, found.path])
            raise ReferenceCycle(f"{where}: a cycle: {names}")
        attempt.decide(f"extends: {found.manifest.identity} from {found.path}, {found.why}")
        attempt.lock[f"extends:{found.manifest.metadata.name}"] = found.manifest.digest
        chain.append(found.path.resolve())
        here, current = found.loaded, found.manifest
        for key, value in here.document["spec"].items():
            if key in _MERGED and isinstance(document.get(key), Mapping):
                document[key] = {**value, **document[key]}
            elif key not in document:
                document[key], origin[key] = value, here
    document.pop("extends", None)
    if len(chain) == 1:
        return manifest.spec, origin
    whole = {**loaded.document, "spec": document}
    spec: TaskSpec = replace(loaded, document=whole).manifest().spec
    return spec, origin


def combine(
    attempt: Attempt, spec: TaskSpec, number: int | None, loaded: Loaded
) -> tuple[TaskSpec, dict[str, tuple[str | int, ...]]]:
    """The task that one combination of its matrix is, and where each part that it takes stands."""
    where = f"{loaded.at(('spec', 'matrix'))}: spec.matrix"
    if spec.matrix is None:
        raise ManifestError(f"{loaded.path}: the task has no matrix, so no combination {number}")
    choices = combinations(spec.matrix)
    if number is None:
        raise ManifestError(
            f"{where}: {len(choices)} combinations, and one is wanted: name it as {loaded.path}#1. "
            "gnomon resolve --matrix lists them"
        )
    if not 1 <= number <= len(choices):
        raise ManifestError(f"{where}: wanted a combination from 1 to {len(choices)}, got {number}")
    attempt.decide(f"matrix: combination {number} of {len(choices)}")
    return chosen(spec, choices[number - 1])


def find_part(attempt: Attempt, kind: str, value: Any, loaded: Loaded, place: tuple[str | int, ...]) -> Part | None:
    """A part of the task in `loaded`; an inline one goes by the name and version of that task."""
    key = kind.lower()
    if value is None:
        return None
    if isinstance(value, Reference | PartFile):
        where = f"{loaded.at(place)}: {Problem(place, '').where}"
        try:
            found = follow(attempt, kind, value, loaded.path.parent, where)
        except ManifestError as error:
            attempt.fail(type(error), str(error))
            return None
        attempt.decide(f"{key}: {found.manifest.identity} from {found.path}, {found.why}")
        own = found.manifest.metadata
        result = Part(found.manifest.spec, found.loaded, ("spec",), own.name, own.version, found.manifest.digest)
    else:
        attempt.decide(f"{key}: inline in {loaded.path}")
        name, version = (loaded.document["metadata"][k] for k in ("name", "version"))
        result = Part(value, loaded, place, name, version, spec_digest(kind, name, version, value))
    attempt.lock[key] = result.digest
    return result


def named(target: str | Path, loaded: Loaded) -> str:
    """What resolves into the same task from any folder: a name and a callable as they are, a file by its path."""
    return str(loaded.path.resolve()) if _is_file(target) else str(target)


def _is_file(target: str | Path) -> bool:
    path = Path(target)
    return isinstance(target, Path) or path.suffix in _SUFFIXES or path.is_dir() or "/" in str(target)


def split_combination(target: str | Path) -> tuple[str | Path, int | None]:
    """'task.yaml#2' as the target and the number of a combination of its matrix."""
    match = re.fullmatch(r"(.+)#([0-9]{1,6})", str(target))
    if match is None or Path(target).exists():
        return target, None
    return type(target)(match[1]), int(match[2])
