"""Which aspects of two tasks differ, key by key: vary one and keep the rest, or the comparison explains nothing.

DLSpec's four aspects (arXiv:2002.11262), and the setting: how the task itself is run, judged and measured.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnomon.spec.resolve import said

ASPECTS = ("model", "dataset", "software", "hardware", "setting")


@dataclass(frozen=True, slots=True)
class Difference:
    """differences: aspect -> key such as 'arguments.hidden' -> its value in the first and in the second task.

    None where a task does not say it. An aspect without differences is not there.
    """

    first: str
    second: str
    differences: Mapping[str, Mapping[str, tuple[Any, Any]]]
    verdict: str


def judge(aspects: Collection[str]) -> str:
    """'the same', 'controlled' for exactly one aspect that differs, 'confounded (k aspects)' for more."""
    if len(aspects) > 1:
        return f"confounded ({len(aspects)} aspects)"
    return "controlled" if aspects else "the same"


def difference(
    first: str | Path, second: str | Path, *, trust: bool = False, search: Sequence[Path] = ()
) -> Difference:
    """What differs between two tasks as they are written; defaults and notation do not count, nor do names.

    Nothing is looked for on this machine. Raises as `resolve` does for what cannot be found or read.
    """
    a, b = (said(target, trust=trust, search=search) for target in (first, second))
    found: dict[str, dict[str, tuple[Any, Any]]] = {}
    for aspect in ASPECTS:
        left, right = dict(_leaves(a[aspect])), dict(_leaves(b[aspect]))
        changed = {
            key: (left.get(key), right.get(key))
            for key in sorted({*left, *right})
            if key not in left or key not in right or not _same(left[key], right[key])
        }
        if changed:
            found[aspect] = changed
    return Difference(str(first), str(second), found, judge(found))


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)  # True is not 1, and 1 is not 1.0


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """Every value that holds no other, under its dotted key; an empty table or list below the top is one, too."""
    if isinstance(value, Mapping):
        items = [(f"{key}.{name}" if key else name, inner) for name, inner in value.items()]
    elif isinstance(value, list):
        items = [(f"{key}[{i}]", inner) for i, inner in enumerate(value)]
    else:
        return [(key, value)]
    if not items:
        return [(key, value)] if key else []
    return [leaf for name, inner in items for leaf in _leaves(inner, name)]
