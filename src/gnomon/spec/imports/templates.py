"""Template text in manifests, `{{ ... }}` of Jinja and of Go: filled from the document or from a literal default.

Nothing is evaluated. Known forms: `{{ framework.version }}`, `{{ .Version }}`, `{{ name | default("x") }}`,
`{{ name or "x" }}`, `{{ .Name | default "x" }}`, `{{ default "x" .Name }}`, `{{ or .Name "x" }}`, `{{ "x" }}`.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from gnomon.spec.load import Place

_EXPRESSION = re.compile(r"\{\{((?:(?!\{\{|\}\}).)*)\}\}", re.DOTALL)
_NAME = r"\.?(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
_LITERAL = r"""(?:"(?P<double>[^"\\]*)"|'(?P<single>[^'\\]*)'|(?P<bare>[-+]?[0-9][\w.]*|true|false))"""
_FORMS = [
    re.compile(form)
    for form in (
        _NAME,
        _LITERAL,
        rf"{_NAME}\s*\|\s*default\s*\(\s*{_LITERAL}\s*\)",
        rf"{_NAME}\s*\|\s*default\s+{_LITERAL}",
        rf"{_NAME}\s+or\s+{_LITERAL}",
        rf"default\s+{_LITERAL}\s+{_NAME}",
        rf"or\s+{_NAME}\s+{_LITERAL}",
    )
]


def has_template(value: Any) -> bool:
    """Is there template text in a scalar?"""
    return isinstance(value, str) and "{{" in value


def fill(document: Any, leave: Collection[str] = ()) -> tuple[Any, list[tuple[Place, str, str]]]:
    """`document` with its templates filled where that needs no evaluation, and (place, before, after) of each.

    leave: top-level keys that are left alone (code). What cannot be filled stays as it is: see `has_template`.
    """
    filled: list[tuple[Place, str, str]] = []

    def walk(value: Any, place: Place) -> Any:
        if isinstance(value, Mapping):
            return {
                key: item if not place and key in leave else walk(item, (*place, key)) for key, item in value.items()
            }
        if isinstance(value, list):
            return [walk(item, (*place, i)) for i, item in enumerate(value)]
        if not has_template(value):
            return value
        after = _EXPRESSION.sub(lambda match: _value(match, document), value)
        if after != value:
            filled.append((place, value, after))
        return after

    return walk(document, ()), filled


def _value(match: re.Match[str], document: Any) -> str:
    """What an expression stands for; the expression itself when that cannot be told."""
    inner = match[1].strip().removeprefix("-").removesuffix("-").strip()  # {{- trims white space -}}
    for form in _FORMS:
        found = form.fullmatch(inner)
        if found is None:
            continue
        groups = found.groupdict()
        looked_up = _look_up(document, groups["name"]) if groups.get("name") else None
        literal = next((groups[g] for g in ("double", "single", "bare") if groups.get(g) is not None), None)
        chosen = looked_up if looked_up is not None else literal
        if chosen is not None:
            return chosen
    return match[0]


def _look_up(document: Any, name: str) -> str | None:
    """The text of a scalar of the document by its dotted path; capitals and underscores do not count."""
    here = document
    for part in name.split("."):
        if not isinstance(here, Mapping):
            return None
        here = next((item for key, item in here.items() if _folded(str(key)) == _folded(part)), None)
    if here is None or isinstance(here, Mapping | list) or has_template(here):
        return None
    return str(getattr(here, "text", here))


def _folded(name: str) -> str:
    return name.replace("_", "").lower()
