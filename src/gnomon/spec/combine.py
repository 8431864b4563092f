"""The combinations of a task's matrix: the product of its alternatives, in an order that never changes."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gnomon.core.errors import ManifestError
from gnomon.spec.manifest import ASPECTS, Matrix, TaskSpec

MOST = 10_000  # combinations
Choice = dict[str, int]  # 'model', 'dims.B' ... -> which of its alternatives, from 0


def combinations(matrix: Matrix) -> list[Choice]:
    """Every combination: by model, dataset, software, hardware, dtype, then dims by name; the last varies fastest.

    Raises ManifestError for more than `MOST` of them.
    """
    counts = {aspect: len(getattr(matrix, aspect)) for aspect in (*ASPECTS, "dtype") if getattr(matrix, aspect)}
    counts |= {f"dims.{name}": len(matrix.dims[name]) for name in sorted(matrix.dims)}
    total = 1
    for count in counts.values():
        total *= count
    if total > MOST:
        raise ManifestError(f"spec.matrix: {total:,} combinations; a task has at most {MOST:,}")
    return [dict(zip(counts, picked, strict=True)) for picked in itertools.product(*map(range, counts.values()))]


def chosen(spec: TaskSpec, choice: Choice) -> tuple[TaskSpec, dict[str, tuple[str | int, ...]]]:
    """The task that a combination is, as if it had been written so, and the place of each part in the matrix."""
    assert spec.matrix is not None
    changes: dict[str, Any] = {"dims": dict(spec.dims)}
    places: dict[str, tuple[str | int, ...]] = {}
    for key, index in choice.items():
        aspect, _, dimension = key.partition(".")
        if dimension:
            changes["dims"][dimension] = spec.matrix.dims[dimension][index]
            continue
        changes[aspect] = getattr(spec.matrix, aspect)[index]
        if aspect in ASPECTS:
            places[aspect] = ("spec", "matrix", aspect, index)
    return replace(spec, matrix=None, extends=None, **changes), places


def describe(matrix: Matrix, choice: Choice) -> dict[str, str]:
    """What each choice is, in words: the reference or file of a part, or which of the inline ones it is."""
    words = {}
    for key, index in choice.items():
        aspect, _, dimension = key.partition(".")
        options: Sequence[Any] = matrix.dims[dimension] if dimension else getattr(matrix, aspect)
        option = options[index]
        named = getattr(option, "ref", None) or getattr(option, "file", None)
        words[key] = named or (str(option) if isinstance(option, str | int) else f"inline {index + 1}")
    return words
