"""A manifest under import: looking up its values and remarking on each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gnomon.core.errors import ManifestError
from gnomon.core.records import Problem
from gnomon.spec.imports.report import Outcome, Remark
from gnomon.spec.imports.templates import has_template
from gnomon.spec.load import Loaded, Place


@dataclass
class Reading:
    """loaded: for lines. document: what is looked up. remarks: in any order. done: places that have their remark."""

    loaded: Loaded
    document: Mapping[str, Any]
    remarks: list[Remark] = field(default_factory=list)
    done: set[Place] = field(default_factory=set)

    def say(self, place: Place, outcome: Outcome, to: str = "", note: str = "", done: bool = True) -> None:
        """Remark on a place. done: nothing more is to be said of it and of what is below."""
        self.remarks.append(Remark(dotted(place), self.loaded.line(place), outcome, to, note))
        if done:
            self.done.add(place)

    def error(self, place: Place, message: str) -> ManifestError:
        """`file:line: key: message`, to be raised."""
        return self.loaded.error([Problem(place, message)])

    def get(self, *place: str | int) -> Any:
        """The value at a place; None where there is none."""
        value: Any = self.document
        for part in place:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def text(self, *place: str | int) -> str | None:
        """A text at a place, a number as it is written; None, with a remark, for anything else."""
        value = written(self.get(*place))
        if value is None or value == "":
            return None
        if isinstance(value, bool | list | Mapping):
            self.say(place, "refused", note=f"wanted text, got {what(value)}")
            return None
        if has_template(value):
            self.say(place, "refused", note=f"template text with nothing to fill it in: {value[:80]}; write the value")
            return None
        return str(value)

    def table(self, *place: str | int) -> bool:
        """Is there a table? With a remark when there is something else."""
        value = self.get(*place)
        if value is not None and not isinstance(value, Mapping):
            self.say(place, "refused", note=f"wanted a table, got {what(value)}")
        return isinstance(value, Mapping)


def dotted(place: Place) -> str:
    """'inputs[0].type'; empty for the whole file."""
    return Problem(place, "").where if place else ""


def what(value: Any) -> str:
    """A value in words."""
    return "a table" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else repr(value)[:60]


def written(value: Any) -> Any:
    """A number as its text: the version 1.120 is not 1.12."""
    return getattr(value, "text", value)
