"""Frozen records and their JSON form: what crosses a file, a database or a folder boundary.

A record is a frozen dataclass marked with `@record(kind, version)`. Its fields are plain values, tuples, string-keyed
dicts and other frozen dataclasses. `to_json` and `from_json` are each other's inverse; `structure` is the strict reader
behind `from_json` and behind the manifests: it finds every problem, each with its place, before it gives up.
"""

import dataclasses
import functools
import itertools
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gnomon.core.errors import DamagedData, did_you_mean

T = TypeVar("T")
_RECORDS: dict[str, type] = {}
_LARGEST = 2**63 - 1  # what SQLite and Parquet can hold
_LARGEST_FLOAT = 1e300  # leaves room to add and to convert without becoming infinite
_SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a document: where (a tuple of keys and indices) and what."""

    path: tuple[str | int, ...]
    message: str

    @property
    def where(self) -> str:
        text = ""
        for part in self.path:
            name = part if isinstance(part, int) or len(part) <= _SHOWN else part[: _SHOWN - 3] + "..."
            text += f"[{name}]" if isinstance(name, int) else (f".{name}" if text else name)
        return text or "(top)"


class StructureError(ValueError):
    """A document does not have the structure of the type; `problems` lists all that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{p.where}: {p.message}" for p in problems))


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition on a field beyond its type, used in `Annotated[int, Constraint(...)]`.

    wanted: the condition in words ("a positive number"). holds: the test. schema: the same in JSON Schema, whose
    keywords each apply to their own type and let all other types pass.
    """

    wanted: str
    holds: Callable[[Any], bool]
    schema: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)


POSITIVE = Constraint("a positive number", lambda value: value > 0, {"exclusiveMinimum": 0})
NOT_NEGATIVE = Constraint("a number that is not negative", lambda value: value >= 0, {"minimum": 0})
NOT_EMPTY = Constraint(
    "a value that is not empty", lambda value: len(value) > 0, {"minLength": 1, "minItems": 1, "minProperties": 1}
)


def record(kind: str, version: int) -> Callable[[type[T]], type[T]]:
    """Class decorator: give a frozen dataclass its name and schema version in JSON and in the store."""

    def mark(cls: type[T]) -> type[T]:
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"@record goes above @dataclass(frozen=True); {cls.__name__} is no dataclass")
        cls.__record__ = (kind, version)  # type: ignore[attr-defined]
        _RECORDS[kind] = cls
        return cls

    return mark


def schema_name(cls: type) -> str:
    """'gnomon/<kind>/<version>' of a record class."""
    kind, version = cls.__record__  # type: ignore[attr-defined]
    return f"gnomon/{kind}/{version}"


def field_key(field: dataclasses.Field[Any]) -> str:
    """The key of a field in JSON and YAML: its name unless `field(metadata={"key": ...})` says otherwise."""
    return str(field.metadata.get("key", field.name))


def to_json(value: Any) -> Any:
    """`value` as dicts, lists and plain values. A record carries its schema under the key `schema`.

    Raises ValueError for a number that `from_json` would refuse (not finite, too large) and for keys that are equal as
    text, TypeError for what JSON cannot hold.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise ValueError(f"a record cannot hold {_describe(value)}; the largest whole number is {_LARGEST}")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a record cannot hold {value}; use None for 'not known'")
        if abs(value) > _LARGEST_FLOAT:
            raise ValueError(f"a record cannot hold {value}; the largest number is {_LARGEST_FLOAT:g}")
        return value
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        items = {str(key): to_json(item) for key, item in value.items()}
        if len(items) != len(value):
            raise ValueError(f"a record cannot hold a table with keys that are equal as text: {_describe(list(value))}")
        return items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        document = {field_key(f): to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"schema": schema_name(type(value)), **document} if hasattr(value, "__record__") else document
    raise TypeError(f"a record cannot hold a {type(value).__name__}")


def from_json(document: Any, wanted: type[T] | None = None) -> T:
    """The record that `to_json` wrote. `wanted` names the class when the caller knows it.

    Raises DamagedData when the schema is missing, unknown or of another version, or when a field does not fit.
    """
    name = document.get("schema") if isinstance(document, Mapping) else None
    if not isinstance(name, str) or name.count("/") != 2:
        raise DamagedData(f"this is no record: wanted a key 'schema' such as 'gnomon/measurement/1', got {name!r}")
    kind = name.split("/")[1]
    cls = wanted if wanted is not None else _RECORDS.get(kind)
    if cls is None:
        raise DamagedData(f"no record is called {kind!r}.{did_you_mean(kind, _RECORDS)}")
    if name != schema_name(cls):
        if schema_name(cls).split("/")[:2] != name.split("/")[:2]:
            raise DamagedData(f"wanted a record {schema_name(cls)!r}, got {name!r}")
        raise DamagedData(
            f"wanted a record {schema_name(cls)!r}, the version that this Gnomon reads, got {name!r}; it was written "
            "by another version of Gnomon. Upgrade Gnomon if that one is newer, or make the record again",
            outcome="unknown-version",
        )
    try:
        return structure(cls, document)
    except StructureError as error:
        raise DamagedData(f"damaged record {name}: {error}") from error


def structure(cls: Any, document: Any) -> Any:
    """`document` (plain values, dicts, lists) as a value of type `cls`: unknown keys are errors, nothing is guessed.

    The only conversions are whole numbers to float and lists to tuples. A record may carry the key `schema`, which must
    then name its class. Raises StructureError with every problem found.
    """
    problems: list[Problem] = []
    value = _read(cls, document, (), problems)
    if problems:
        raise StructureError(problems)
    return value


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _describe(value: Any, depth: int = 3) -> str:
    """A wrong value in a message. What is wrong may be endless, too: neither all of it nor all of its depth is looked
    at, and `repr` is kept from whole numbers that Python refuses to print.
    """
    if isinstance(value, int) and abs(value) > 10 * _LARGEST:
        text = f"a number of {len(str(value)) if abs(value) < 10**4000 else 'thousands of'} digits"
    elif isinstance(value, Mapping):
        shown = [f"{_describe(key, 0)}: {_describe(value[key], depth - 1)}" for key in itertools.islice(value, 8)]
        text = "{" + (", ".join(shown) + (", ..." if len(value) > 8 else "") if depth > 0 else "...") + "}"
    elif isinstance(value, list | tuple):
        shown = [_describe(item, depth - 1) for item in value[:8]] if depth > 0 else []
        text = "[" + (", ".join(shown) + (", ..." if len(value) > 8 else "") if depth > 0 else "...") + "]"
    else:
        text = repr(value[: 2 * _SHOWN] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def type_name(kind: Any) -> str:
    """A type in a user's words: 'a whole number', 'one of ...', 'a list of text'."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        conditions = [c.wanted for c in args[1:] if isinstance(c, Constraint)]
        return conditions[0] if conditions else type_name(args[0])
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(repr(a) for a in args)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in args)
    if origin is tuple:
        return f"a list of {type_name(args[0])}" if args[-1] is ... else f"a list of {len(args)} values"
    if origin in (dict, Mapping):
        return "a table of keys and values"
    if dataclasses.is_dataclass(kind):
        return "a table of keys and values"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "nothing"}
    return names.get(kind, str(kind))


def _read(kind: Any, value: Any, path: tuple[str | int, ...], problems: list[Problem]) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        before = len(problems)
        result = _read(args[0], value, path, problems)
        for constraint in args[1:]:
            if len(problems) == before and isinstance(constraint, Constraint) and not constraint.holds(result):
                problems.append(Problem(path, f"wanted {constraint.wanted}, got {_describe(value)}"))
        return result
    if origin in (Union, types.UnionType):
        return _read_union(args, value, path, problems)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            return value
        return _read_dataclass(kind, value, path, problems)
    if origin is Literal:
        if any(value == a and type(value) is type(a) for a in args):
            return value
        near = did_you_mean(value, [str(a) for a in args]) if isinstance(value, str) else ""
        problems.append(Problem(path, f"wanted {type_name(kind)}, got {_describe(value)}.{near}".removesuffix(".")))
        return None
    if origin is tuple and isinstance(value, list | tuple):
        if args[-1] is ...:
            return tuple(_read(args[0], item, (*path, i), problems) for i, item in enumerate(value))
        if len(value) == len(args):
            pairs = enumerate(zip(args, value, strict=True))
            return tuple(_read(a, item, (*path, i), problems) for i, (a, item) in pairs)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            if not isinstance(key, str):
                problems.append(Problem(path, f"keys are text; got {_describe(key)}. Put it in quotes"))
                continue
            if get_origin(args[0]) is Annotated:
                _read(args[0], key, (*path, key), problems)
            result[key] = _read(args[1], item, (*path, key), problems)
        return result
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= _LARGEST_FLOAT:  # False for NaN
            return float(value)
    elif kind is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) <= _LARGEST:
            return value
    elif kind in (str, bool, type(None)) and type(value) is kind:
        return value
    problems.append(Problem(path, f"wanted {type_name(kind)}, got {_describe(value)}"))
    return None


def _read_union(args: tuple[Any, ...], value: Any, path: tuple[str | int, ...], problems: list[Problem]) -> Any:
    attempts: list[list[Problem]] = []
    for candidate in args:
        found: list[Problem] = []
        result = _read(candidate, value, path, found)
        if not found:
            return result
        attempts.append(found)
    if isinstance(value, Mapping):  # the alternative that was meant shares most keys: show its own problems
        inner = [
            (-_shared_keys(candidate, value), len(found), position)
            for position, (candidate, found) in enumerate(zip(args, attempts, strict=True))
            if dataclasses.is_dataclass(candidate) or any(len(p.path) > len(path) for p in found)
        ]
        if inner:
            problems.extend(attempts[min(inner)[2]])
            return None
    scalar = [a for a in args if a is not type(None)]
    if len(scalar) == 1:
        problems.extend(attempts[args.index(scalar[0])])
    else:
        problems.append(Problem(path, f"wanted {' or '.join(type_name(a) for a in args)}, got {_describe(value)}"))
    return None


def _shared_keys(kind: Any, value: Mapping[Any, Any]) -> int:
    return sum(field_key(f) in value for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else 0


def _read_dataclass(cls: type, value: Any, path: tuple[str | int, ...], problems: list[Problem]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(Problem(path, f"wanted a table of keys and values, got {_describe(value)}"))
        return None
    hints = _hints(cls)
    fields = {field_key(f): f for f in dataclasses.fields(cls)}
    before, arguments = len(problems), {}
    for key in value:
        if key == "schema" and key not in fields and hasattr(cls, "__record__"):
            if value[key] != schema_name(cls):
                problems.append(Problem((*path, key), f"wanted {schema_name(cls)!r}, got {_describe(value[key])}"))
        elif not isinstance(key, str):
            problems.append(Problem(path, f"keys are text; got {_describe(key)}. Put it in quotes"))
        elif key not in fields:
            near = did_you_mean(key, fields)
            problems.append(Problem((*path, key), f"unknown key.{near} Known: {', '.join(fields)}"))
    for key, field in fields.items():
        if key in value:
            arguments[field.name] = _read(hints[field.name], value[key], (*path, key), problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(Problem((*path, key), f"missing; wanted {type_name(hints[field.name])}"))
    if len(problems) > before:
        return None
    try:
        return cls(**arguments)
    except ValueError as error:  # what a __post_init__ refuses
        problems.append(Problem(path, str(error)))
        return None


def json_schema(cls: type) -> dict[str, Any]:
    """JSON Schema (2020-12) of what `structure` accepts for `cls`, apart from rules that span several fields.

    One difference cannot be written: JSON Schema takes 2.0 for a whole number, `structure` does not.
    """
    definitions: dict[str, Any] = {}
    top = _schema(cls, definitions, {})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": definitions}


def _schema(kind: Any, definitions: dict[str, Any], placed: dict[type, str]) -> dict[str, Any]:
    """placed: under which key of `definitions` each class stands; classes of two modules may share a name."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if origin is Annotated:
        extra = [c.schema for c in args[1:] if isinstance(c, Constraint)]
        return functools.reduce(lambda a, b: {**a, **b}, extra, _schema(args[0], definitions, placed))
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(a, definitions, placed) for a in args]}
    if origin is tuple:
        if args[-1] is ...:
            return {"type": "array", "items": _schema(args[0], definitions, placed)}
        items = [_schema(a, definitions, placed) for a in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (dict, Mapping):
        names = {"propertyNames": _schema(args[0], definitions, placed)} if get_origin(args[0]) is Annotated else {}
        return {"type": "object", "additionalProperties": _schema(args[1], definitions, placed), **names}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kind not in placed:  # before its fields: a type may contain itself
            alike = sum(other.__name__ == kind.__name__ for other in placed)
            placed[kind] = kind.__name__ + (f"-{alike + 1}" if alike else "")
            hints = _hints(kind)
            fields = dataclasses.fields(kind)
            missing = dataclasses.MISSING
            own = {"schema": {"const": schema_name(kind)}} if hasattr(kind, "__record__") else {}
            definitions[placed[kind]] = {
                "type": "object",
                "description": (kind.__doc__ or "").strip().split("\n")[0],
                "properties": own | {field_key(f): _schema(hints[f.name], definitions, placed) for f in fields},
                "required": [field_key(f) for f in fields if f.default is missing and f.default_factory is missing],
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{placed[kind]}"}
    if kind is int:
        return {"type": "integer", "minimum": -_LARGEST, "maximum": _LARGEST}
    if kind is float:
        return {"type": "number", "minimum": -_LARGEST_FLOAT, "maximum": _LARGEST_FLOAT}
    return {"type": {str: "string", bool: "boolean", type(None): "null"}[kind]}
