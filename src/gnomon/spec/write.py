"""A document as YAML that reads back as itself: block style, quotes where a text could be read as something else."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:@+-]*")  # and none of the words below
_WORDS = re.compile(r"(?i:true|false|null|yes|no|on|off|y|n|~|\.?inf|\.?nan)|[.].*|.*:|.*: .*")
_NARROW = 96  # a list of scalars that is no longer stands on one line
Place = tuple[str | int, ...]


def yaml_text(document: Mapping[str, Any], comments: Mapping[Place, str] | None = None) -> str:
    """`document` (tables with text as keys, lists, scalars; no NaN) as YAML 1.2.

    comments: place -> what is written in the lines above that key.
    """
    return "\n".join(_table(document, 0, (), comments or {})) + "\n"


def _table(table: Mapping[str, Any], indent: int, place: Place, comments: Mapping[Place, str]) -> list[str]:
    lines: list[str] = []
    pad = " " * indent
    for key, value in table.items():
        here = (*place, key)
        lines += [f"{pad}# {line}".rstrip() for line in comments.get(here, "").splitlines()]
        head = f"{pad}{scalar(key)}:"
        if isinstance(value, Mapping) and value:
            lines += [head, *_table(value, indent + 2, here, comments)]
        elif isinstance(value, list | tuple) and value and not _fits(value, len(head)):
            lines += [head, *_items(value, indent + 2, here, comments)]
        else:
            lines.append(f"{head} {_flow(value)}")
    return lines


def _items(items: Sequence[Any], indent: int, place: Place, comments: Mapping[Place, str]) -> list[str]:
    lines: list[str] = []
    pad = " " * indent
    for i, item in enumerate(items):
        if isinstance(item, Mapping) and item:
            first, *rest = _table(item, indent + 2, (*place, i), comments)
            while first.lstrip().startswith("#"):  # a comment may not stand behind the dash
                lines.append(f"{pad}{first.lstrip()}")
                first, *rest = rest
            lines += [f"{pad}- {first.lstrip()}", *rest]
        else:
            lines.append(f"{pad}- {_flow(item)}")
    return lines


def _fits(items: Sequence[Any], used: int) -> bool:
    flat = not any(isinstance(item, Mapping | list | tuple) for item in items)
    return flat and used + len(_flow(items)) <= _NARROW


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A scalar for block and flow context alike; text is plain where that is safe in both, else as in JSON."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and not _WORDS.fullmatch(value):
            return value
        return "".join(c if c.isprintable() else _escaped(c) for c in json.dumps(value, ensure_ascii=False))
    if isinstance(value, float):
        return json.dumps(float(value), allow_nan=False)
    return json.dumps(value)


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
