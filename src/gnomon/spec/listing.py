"""The tasks that can be named, and for each whether this machine can run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnomon.core.errors import GnomonError
from gnomon.core.records import record
from gnomon.spec.find import tasks
from gnomon.spec.resolve import resolve


@record("task-entry", 1)
@dataclass(frozen=True, slots=True)
class Entry:
    """One task of the list. why_not: the first reason why it cannot run here, None when it can."""

    name: str
    version: str
    description: str
    mode: str
    dims: Mapping[str, int]
    path: str
    why_not: str | None


def listing(search: Sequence[Path] = (), host: Mapping[str, Any] | None = None) -> list[Entry]:
    """Every task that is shipped, registered by a package, or in a folder of `search`."""
    entries = []
    for found in tasks(search):
        meta, spec = found.manifest.metadata, found.manifest.spec
        mode, dims, why_not = spec.mode, dict(spec.dims), None
        try:
            task = resolve(found.path, search=search, host=host)
            mode, dims = task.mode, dict(task.dims)
        except GnomonError as error:
            why_not = str(error).splitlines()[0].removeprefix(f"{found.path}:")
        entries.append(Entry(meta.name, meta.version, meta.description, mode, dims, str(found.path), why_not))
    return entries
