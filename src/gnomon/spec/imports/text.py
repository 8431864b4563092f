"""YAML as it is found: read under the limits of our own manifests, mended only where one meaning is left.

Mended, each with a remark: tabs as indentation when no other tab width gives another document, `{{ ... }}` that should
have been in quotes, a key given twice with equal values, and the merge keys `<<` of YAML 1.1. Numbers remember how they
were written, because a version 1.120 is no 1.12.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gnomon.core.errors import ManifestError
from gnomon.spec.load import Builder, Loaded, Place, parse

_TAB_WIDTHS = (2, 4, 8)
_UNQUOTED = re.compile(
    r"^([ \t]*(?:- +)?[A-Za-z_][\w ]*:[ \t]+)(\{\{[^{}\n]*\}\}[^#\n]*?)([ \t]*(?:#.*)?)$", re.MULTILINE
)
_CHECKSUM = re.compile(r"(?=.*[0-9])[0-9a-fA-F]{32,128}")  # one of digits alone is no number
_LEAD = re.compile(r"[ \t]*")
_SEPARATING_TAB = re.compile(r"(?<=[:?-])[ \t]*\t[ \t]*|[ \t]*\t[ \t]*(?=#|$)")


class WrittenInt(int):
    """A whole number and its text in the file."""

    text: str


class WrittenFloat(float):
    """A number and its text in the file."""

    text: str


@dataclass(frozen=True, slots=True)
class Mended:
    """One thing that was mended: where, on which line, and how."""

    place: Place
    line: int
    note: str


@dataclass(frozen=True, slots=True)
class Messy:
    """A document as read. loaded: its data, numbers as WrittenInt and WrittenFloat. mended: in order of lines."""

    loaded: Loaded
    mended: tuple[Mended, ...]


class _Lenient(Builder):
    """Keeps the text of numbers, and lets a key be given twice with one value."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.mended: list[Mended] = []

    def scalar(self, event: Any, tag: str, place: Place, line: int) -> Any:
        if event.style is None and _CHECKSUM.fullmatch(event.value):
            return event.value
        value = super().scalar(event, tag, place, line)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        written = WrittenInt(value) if isinstance(value, int) else WrittenFloat(value)
        written.text = event.value
        return written

    def twice(self, place: Place, first: int, before: Any, after: Any) -> None:
        if json.dumps(before, sort_keys=True, default=str) == json.dumps(after, sort_keys=True, default=str):
            self.mended.append(Mended(place, first, "given twice with the same value; taken once"))
        else:
            super().twice(place, first, before, after)


def read(path: Path, data: bytes) -> Messy:
    """The document of a file's bytes. Raises ManifestError with `file:line:` for what has no meaning, or several."""
    try:
        return _merged(_parse(path, data))
    except ManifestError as error:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ManifestError(f"{error}. Save it as UTF-8, as `iconv -f latin1 -t utf-8` does") from error
        first = error
    quoted, templates = _quote_templates(text)
    if templates:
        try:
            return _merged(_parse(path, quoted.encode()), templates)
        except ManifestError:
            pass
    tab = next((number for number, line in enumerate(quoted.splitlines(), 1) if "\t" in line), None)
    if tab is None:
        raise first
    note = Mended((), tab, "tabs as indentation, made spaces; no tab width gives another document")
    return _merged(_without_tabs(path, quoted, first, tab), [*templates, note])


def _without_tabs(path: Path, text: str, first: ManifestError, line: int) -> Messy:
    """The one meaning that a text has whatever the width of its tabs."""
    readings: dict[str, Messy] = {}
    for width in _TAB_WIDTHS:
        spaced = "\n".join(_spaced(one, width) for one in text.splitlines())
        try:
            messy = _parse(path, (spaced + "\n").encode())
        except ManifestError:
            continue
        readings.setdefault(json.dumps(_loosely(messy.loaded.document), sort_keys=True), messy)
    if not readings:
        raise first
    if len(readings) > 1:
        raise ManifestError(
            f"{path}:{line}: a tab as indentation means different things with tabs of {_TAB_WIDTHS[0]}, "
            f"{_TAB_WIDTHS[1]} and {_TAB_WIDTHS[2]} columns. Indent with spaces"
        )
    return next(iter(readings.values()))


def _spaced(line: str, width: int) -> str:
    lead = _LEAD.match(line)
    assert lead is not None  # the pattern matches the empty text
    rest = line[lead.end() :]
    return lead[0].expandtabs(width) + _SEPARATING_TAB.sub(" ", rest) if rest else ""


def _loosely(value: Any) -> Any:
    """A document less the indentation inside its longer texts (inline code), which depends on the tab width."""
    if isinstance(value, Mapping):
        return {str(key): _loosely(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_loosely(item) for item in value]
    return " ".join(value.split()) if isinstance(value, str) else value


def _quote_templates(text: str) -> tuple[str, list[Mended]]:
    """`key: {{ x }}` is a table in a table to YAML; in quotes it is the text that was meant."""
    mended = [
        Mended((), text.count("\n", 0, match.start()) + 1, "template text without quotes; read as text")
        for match in _UNQUOTED.finditer(text)
    ]
    return _UNQUOTED.sub(lambda m: f"{m[1]}'{m[2].replace(chr(39), chr(39) * 2)}'{m[3]}", text), mended


def _parse(path: Path, data: bytes) -> Messy:
    builder = _Lenient(path)
    loaded = parse(path, data, builder)
    return Messy(loaded, tuple(builder.mended))


def _merged(messy: Messy, mended: list[Mended] | None = None) -> Messy:
    """With the merge keys of YAML 1.1 followed, which 1.2 reads as ordinary keys."""
    followed: list[Mended] = []
    document = _follow(messy.loaded, messy.loaded.document, (), followed)
    everything = sorted([*messy.mended, *(mended or []), *followed], key=lambda one: one.line)
    return Messy(replace(messy.loaded, document=document), tuple(everything))


def _follow(loaded: Loaded, value: Any, place: Place, mended: list[Mended]) -> Any:
    if isinstance(value, list):
        return [_follow(loaded, item, (*place, i), mended) for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    table = {str(key): _follow(loaded, item, (*place, str(key)), mended) for key, item in value.items()}
    if len(table) < len(value):
        line = loaded.line(place)
        raise ManifestError(f"{loaded.path}:{line}: two keys are equal as text: {', '.join(map(repr, value))[:120]}")
    merge = table.get("<<")
    listed = merge if isinstance(merge, list) else [merge]
    sources = [source for source in listed if isinstance(source, Mapping)]
    if merge is None or len(sources) < len(listed):
        return table
    del table["<<"]
    mended.append(Mended((*place, "<<"), loaded.line((*place, "<<")), "merge key of YAML 1.1; followed"))
    for source in sources:  # the table's own keys win, then those of the first source
        table = {**source, **table}
    return table


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value of a document that is no table with keys, and no list of tables, with its place."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, (*place, key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            yield from leaves(item, (*place, i))
    else:
        yield place, value
