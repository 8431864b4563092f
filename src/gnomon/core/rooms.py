"""Rooms that can be called: `gnomon.forecast(...)` is a function although `gnomon.forecast` is a package."""

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallableRoom(ModuleType):
    __target__: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module, _, name = self.__target__.partition(":")
        return getattr(importlib.import_module(module), name)(*args, **kwargs)


def make_callable(room: str, target: str) -> None:
    """Calling the package `room` calls the function `module:name`, which is imported at the first call."""
    module = sys.modules[room]
    module.__class__ = _CallableRoom
    module.__target__ = target  # type: ignore[attr-defined]
