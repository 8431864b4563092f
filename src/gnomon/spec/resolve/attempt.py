"""One attempt to resolve a task: what it may look at, what is wrong so far, what was decided."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnomon.core.errors import (
    DamagedData,
    GnomonError,
    ManifestError,
    NotRunnable,
)
from gnomon.core.records import Problem
from gnomon.spec.load import Loaded, show


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a task. loaded, place: where its spec stands. digest, name, version: its identity."""

    spec: Any
    loaded: Loaded
    place: tuple[str | int, ...]
    name: str
    version: str
    digest: str

    @property
    def folder(self) -> Path:
        return self.loaded.path.parent

    def where(self, key: str = "") -> str:
        """`file:line: key` of a key of this part."""
        keys: list[str | int] = [int(k) if k.isdecimal() else k for k in re.findall(r"[^.\[\]]+", key)]
        place = (*self.place, *keys)
        return f"{self.loaded.at(place)}: {Problem(place, '').where}"


@dataclass
class Attempt:
    """trust, search, host: as in `resolve`. lock: part -> digest. failures: all are told together."""

    trust: bool
    search: tuple[Path, ...]
    host: Mapping[str, Any] | None
    decisions: list[str] = field(default_factory=list)
    failures: list[tuple[type[GnomonError], str]] = field(default_factory=list)
    lock: dict[str, str] = field(default_factory=dict)

    def fail(self, kind: type[GnomonError], message: str) -> None:
        self.failures.append((kind, message))

    def decide(self, text: str) -> None:
        self.decisions.append(text)

    def stop_if_failed(self) -> None:
        """One error for all failures; its class is that of the gravest."""
        for kind in (ManifestError, DamagedData, NotRunnable):
            found = {failed for failed, _ in self.failures if issubclass(failed, kind)}
            if found:
                one = found.pop() if len(found) == 1 else kind
                raise one(show(list(dict.fromkeys(message for _, message in self.failures))))
