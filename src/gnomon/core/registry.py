"""A table of things by name, each loaded when it is first asked for."""

import importlib
import operator
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from gnomon.core.errors import GnomonError, NotRunnable, UnknownName, did_you_mean


class Registry:
    """Names to `module:attribute` targets; nothing is imported before `get`.

    kind: what an entry is called in messages ("recipe"). group: entry-point group through which installed packages
    add entries of their own; an entry of ours is never replaced by one of theirs.
    """

    def __init__(self, kind: str, targets: Mapping[str, str], group: str | None = None) -> None:
        self.kind, self._group = kind, group
        self._targets = dict(targets)

    def _all(self) -> dict[str, str]:
        if self._group is not None:
            for point in metadata.entry_points(group=self._group):
                self._targets.setdefault(point.name, point.value)
            self._group = None  # read once
        return self._targets

    def names(self) -> list[str]:
        return sorted(self._all())

    def __contains__(self, name: str) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def add(self, name: str, target: str) -> None:
        """Register `module:attribute` under `name`. Raises ValueError when the name is taken by another target."""
        if self._all().get(name, target) != target:
            raise ValueError(f"{self.kind} {name!r} is already {self._targets[name]}")
        self._targets[name] = target

    def get(self, name: str) -> Any:
        """The object registered under `name`.

        Raises UnknownName with the nearest name, NotRunnable when the entry needs a missing package or leads nowhere.
        """
        target = self._all().get(name)
        if target is None:
            known = ", ".join(self.names()) or "none"
            raise UnknownName(f"no {self.kind} is called {name!r}.{did_you_mean(name, self.names())} Known: {known}")
        module, _, attribute = target.partition(":")
        try:
            return operator.attrgetter(attribute)(importlib.import_module(module))
        except GnomonError:
            raise
        except ImportError as error:
            raise NotRunnable(f"{self.kind} {name!r} needs a package that is missing here: {error}") from error
        except AttributeError as error:
            raise NotRunnable(
                f"{self.kind} {name!r} is registered as {target!r}, which is not there: {error}"
            ) from error
