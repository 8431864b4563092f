"""From a file to plain data with the line of every key: YAML 1.2 read event by event, under limits, running nothing.

The tree is built here rather than by a YAML constructor: so no tag can name a class, an alias is counted each time it
is used (a few lines of them can stand for billions of nodes), no key is given twice, and every value keeps its line.
"""

import difflib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnomon._version import __version__
from gnomon.core.errors import ManifestError, UnknownVersion
from gnomon.core.records import Problem, StructureError
from gnomon.spec.manifest import API_VERSION, Manifest, read

LARGEST_FILE = 256 * 1024  # bytes; the longest manifest we know has 5,000
DEEPEST = 32
MOST_NODES = 50_000  # after aliases are expanded
SCREEN = 20  # problems shown at once
_LINE = 240  # characters of one of many problems

# YAML 1.2, section 10.3.2 (core schema)
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document as read. document: plain data. lines: line (from 1) of each key and item, by its place."""

    path: Path
    text: str
    document: Any
    lines: Mapping[Place, int] = field(repr=False)

    def line(self, place: Place) -> int:
        """Line of a key; that of the nearest table around it when the key itself is not there."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def at(self, place: Place) -> str:
        """`file:line` of a key; the file alone when it is no text with lines."""
        return f"{self.path}:{self.line(place)}" if self.lines else str(self.path)

    def error(self, problems: list[Problem]) -> ManifestError:
        """All problems in one error, each as `file:line: key: what`."""
        return ManifestError(show([self.problem(p) for p in problems]))

    def problem(self, problem: Problem) -> str:
        """`file:line: key: what was wanted, what came`."""
        message = problem.message
        if message.startswith("wanted text, got") or re.match(
            r"wanted (a version|a reference|the name).*, got [0-9.]+$", message
        ):
            message += ". Put it in quotes"
        where = problem.where if len(problem.where) <= 100 else problem.where[:97] + "..."
        return f"{self.at(problem.path)}: {where}: {message}"

    def manifest(self) -> Manifest:
        """The document as a manifest. Raises ManifestError with every problem, UnknownVersion for another format."""
        version = self.document.get("apiVersion") if isinstance(self.document, Mapping) else None
        if isinstance(version, str) and version != API_VERSION and re.fullmatch(r"gnomon/v[0-9]{1,9}", version):
            raise UnknownVersion(
                f"{self.at(('apiVersion',))}: apiVersion: this manifest is written in {version}; this Gnomon "
                f"({__version__}) reads {API_VERSION}. Upgrade Gnomon, or ask its author for one in {API_VERSION}"
            )
        try:
            return read(self.document)
        except StructureError as error:
            raise self.error(error.problems) from error


def show(problems: list[str]) -> str:
    """At most one screen: a line for each problem, long ones cut where there are many."""
    longest = _LINE if len(problems) > 4 else 4 * _LINE
    lines = [" ".join(problem.split()) for problem in problems]
    lines = [line if len(line) <= longest else line[: longest - 3] + "..." for line in lines]
    if len(lines) > SCREEN:
        lines[SCREEN:] = [f"... and {len(lines) - SCREEN} more"]
    return "\n".join(lines)


def load(path: Path) -> Loaded:
    """One YAML document from a file, as plain data: tables, lists, text, numbers, true, false, nothing.

    Raises ManifestError with `file:line:` for what is no file, too large, not UTF-8, not YAML 1.2, several documents, a
    key given twice, a tag, a number that is not finite or too large, or more depth or aliases than a manifest needs.
    """
    return parse(path, file_bytes(path))


def parse(path: Path, data: bytes, builder: "Builder | None" = None) -> Loaded:
    """As `load`, for bytes that are at hand; `path` is for messages. builder: one that reads some things otherwise."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ManifestError(f"{path}:{line}: wanted UTF-8 text, got the byte 0x{data[error.start]:02x}") from error
    builder = builder if builder is not None else Builder(path)
    try:
        document = builder.build(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        hint = ". Indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise ManifestError(f"{path}:{line}: this is not YAML: {error.problem or error.context}{hint}") from error
    except YAMLError as error:
        raise ManifestError(f"{path}: this is not YAML: {str(error).splitlines()[0]}") from error
    except (ValueError, RecursionError) as error:  # what the scanner trips over: a malformed %directive, an escape
        raise ManifestError(f"{path}: this is not YAML: {' '.join(str(error).split())[:120]}") from error
    loaded = Loaded(path, text, document, builder.lines)
    if builder.problems:
        raise loaded.error(builder.problems)
    return loaded


def file_bytes(path: Path) -> bytes:
    """The bytes of a file that may be a manifest. Raises ManifestError: no file, or larger than a manifest is."""
    if path.is_dir():
        raise ManifestError(f"{path} is a folder; wanted a manifest file in it, such as {path / 'task.yaml'}")
    if not path.exists():
        near = _nearest_file(path)
        raise ManifestError(f"{path}: no such file.{f' Did you mean {str(near)!r}?' if near else ''}")
    if not path.is_file():
        raise ManifestError(f"{path} is no ordinary file")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise ManifestError(f"{path} is larger than {LARGEST_FILE // 1024} KiB; a manifest holds no data")
    return data


def _nearest_file(path: Path) -> Path | None:
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml", ".json")]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return path.parent / near[0] if near else None


@dataclass(frozen=True, slots=True)
class _Node:
    """A value, how many nodes it stands for with its aliases expanded, how deep it is, and the lines below it."""

    value: Any
    size: int
    depth: int
    lines: dict[Place, int]


class Builder:
    """Plain data from YAML events. Stops at once at what no reader should go on with; collects the rest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.lines: dict[Place, int] = {}
        self._anchors: dict[str, _Node] = {}

    def build(self, events: Iterator[Any]) -> Any:
        document: _Node | None = None
        for event in events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                if document is not None:
                    raise self._stop(event, "wanted one document, got a second one after '---'")
            elif kind in ("ScalarEvent", "SequenceStartEvent", "MappingStartEvent", "AliasEvent"):
                document = self._node(event, events, ())
        if document is None or document.value is None:
            raise ManifestError(f"{self.path}: the file is empty; wanted a manifest")
        self.lines = document.lines
        return document.value

    def _stop(self, event: Any, message: str) -> ManifestError:
        return ManifestError(f"{self.path}:{event.start_mark.line + 1}: {message}")

    def _node(self, event: Any, events: Iterator[Any], place: Place) -> _Node:
        line = event.start_mark.line + 1
        kind = type(event).__name__
        if len(place) > DEEPEST:
            raise self._stop(event, f"nested deeper than {DEEPEST} levels")
        if kind == "AliasEvent":
            if event.anchor not in self._anchors:
                raise self._stop(event, f"the alias '*{event.anchor}' has no anchor '&{event.anchor}' before it")
            node = self._anchors[event.anchor]
            if len(place) + node.depth > DEEPEST:
                raise self._stop(event, f"nested deeper than {DEEPEST} levels")
            return node
        tag = getattr(event.tag, "trval", None) or event.tag
        if tag is not None and str(tag) not in _PLAIN_TAGS and str(tag) != "!":
            raise self._stop(event, f"the tag '{event.tag}' is refused: a manifest holds plain data and names no class")
        if kind == "ScalarEvent":
            node = _Node(self.scalar(event, str(tag) if tag else "", place, line), 1, 0, {})
        elif kind == "SequenceStartEvent":
            node = self._sequence(events, place)
        else:
            node = self._mapping(events, place)
        node.lines.setdefault((), line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, events: Iterator[Any], place: Place) -> _Node:
        items: list[Any] = []
        size, depth, lines = 1, 0, dict[Place, int]()
        for event in events:
            if type(event).__name__ == "SequenceEndEvent":
                break
            node = self._node(event, events, (*place, len(items)))
            size, depth = self._count(event, size + node.size), max(depth, node.depth)
            _place_lines(lines, len(items), node, event)
            items.append(node.value)
        return _Node(items, size, depth + 1, lines)

    def _mapping(self, events: Iterator[Any], place: Place) -> _Node:
        table: dict[Any, Any] = {}
        size, depth, lines = 1, 0, dict[Place, int]()
        for event in events:
            if type(event).__name__ == "MappingEndEvent":
                break
            key = self._node(event, events, (*place, "?")).value
            if not isinstance(key, str | int | float | bool | None):
                raise self._stop(event, f"{_dotted(place)}a key is text, got {_kind_of(key)}")
            value_event = next(events)
            node = self._node(value_event, events, (*place, str(key)))
            if key in table:
                first = lines.get((str(key),), event.start_mark.line + 1)
                self.twice((*place, str(key)), first, table[key], node.value)
            size, depth = self._count(value_event, size + 1 + node.size), max(depth, node.depth)
            _place_lines(lines, str(key), node, event)
            table[key] = node.value
        return _Node(table, size, depth + 1, lines)

    def twice(self, place: Place, first: int, before: Any, after: Any) -> None:
        """A key that is given again, with the value `after`; `first` is the line of the one before."""
        self.problems.append(Problem(place, f"the key is given twice, first on line {first}"))

    def _count(self, event: Any, size: int) -> int:
        if size > MOST_NODES:
            raise self._stop(event, f"more than {MOST_NODES:,} values once its aliases are expanded")
        return size

    def scalar(self, event: Any, tag: str, place: Place, line: int) -> Any:
        """The value of a scalar by the core schema; `tag` is its own, or empty."""
        text = event.value
        plain = event.style is None and tag in ("", "!")
        if tag == "tag:yaml.org,2002:str" or tag == "!" or not (plain or tag):
            return self._text(event, place, text)
        if _NULL.fullmatch(text):
            return None
        if text in _BOOL:
            return _BOOL[text]
        problem: str | None = None
        value: Any = None
        if _INT.fullmatch(text):
            if len(text) > 30:
                problem = f"a number of {len(text)} digits; whole numbers go up to 9223372036854775807"
            else:
                value = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
                if abs(value) > 2**63 - 1:
                    problem = f"{text} is too large; whole numbers go up to 9223372036854775807"
        elif _FLOAT.fullmatch(text):
            value = float(text)
            if not math.isfinite(value) or abs(value) > 1e300:
                problem = f"{text[:40]} is too large; numbers go up to 1e300"
        elif _NOT_FINITE.fullmatch(text):
            problem = f"{text} is no number that a manifest can hold; leave the key out for 'not known'"
        else:
            return self._text(event, place, text)
        if problem:
            self.lines[place] = line
            raise self._stop(event, f"{_dotted(place)}{problem}")
        return value

    def _text(self, event: Any, place: Place, text: str) -> str:
        """A text in normal form C. JSON writes what lies beyond U+FFFF as two escapes, which are one character."""
        if not text.isascii():
            try:
                text = text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise self._stop(event, f"{_dotted(place)}half of a character, such as '\\ud800' alone") from None
        return unicodedata.normalize("NFC", text)


def _place_lines(lines: dict[Place, int], key: str | int, node: _Node, event: Any) -> None:
    lines.update({(key, *below): line for below, line in node.lines.items()})
    lines[(key,)] = event.start_mark.line + 1


def _dotted(place: Place) -> str:
    return f"{Problem(place, '').where}: " if place else ""


def _kind_of(value: Any) -> str:
    return "a list" if isinstance(value, list) else "a table"
