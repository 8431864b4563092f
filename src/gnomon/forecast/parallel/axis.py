"""Which axis of a tensor is divided among devices, and where that axis goes when the tensor is viewed otherwise."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Axis(NamedTuple):
    """Axis `dim` of a tensor is outer x extent x inner elements, and `extent` is cut into equal parts.

    The heads in a (B x H, L, D) tensor are Axis(0, B, H): which of them are here cannot be told from the size alone.
    """

    dim: int
    outer: int
    extent: int


def viewed(axis: Axis, old: Sequence[int], new: Sequence[int], parts: int) -> Axis | None:
    """The same axis after a reshape from `old` to `new`; None when `parts` do not stay contiguous blocks of one axis.

    An axis that is taken apart stays cut at its major factor: 64 columns viewed as 4 heads of 16 are cut by heads.
    """
    if math.prod(old) != math.prod(new) or 0 in old:
        return None
    before = math.prod(old[: axis.dim]) * axis.outer
    passed = 1
    for dim, size in enumerate(new):
        if size > 1 and passed <= before < passed * size:
            if before % passed:
                return None
            outer = before // passed
            if size % outer:
                return None
            extent = math.gcd(axis.extent, size // outer)
            whole = min(axis.extent, size // outer)
            return Axis(dim, outer, whole) if extent == whole and whole % parts == 0 else None
        passed *= size
    return None


def cut_at(axis: Axis, old: Sequence[int], new: Sequence[int]) -> int:
    """What `parts` would have had to divide for `viewed` to succeed: the size of the major factor."""
    before = math.prod(old[: axis.dim]) * axis.outer
    passed = 1
    for size in new:
        if size > 1 and passed <= before < passed * size:
            return max(1, min(axis.extent, passed * size // max(1, before)))
        passed *= size
    return axis.extent


def local(shape: Sequence[int], axis: Axis | None, parts: int) -> tuple[int, ...]:
    """The shape of one part."""
    if axis is None:
        return tuple(shape)
    return tuple(n // parts if i == axis.dim else n for i, n in enumerate(shape))


def is_plain(axis: Axis, shape: Sequence[int]) -> bool:
    """Whether the axis fills its dim: columns that may be dealt out in any order."""
    return axis.outer * axis.extent == shape[axis.dim]


def agree(axes: Sequence[Axis]) -> Axis | None:
    """One axis for operands that meet element by element: the same blocks, at the finest that all of them know."""
    first = axes[0]
    if any(a.dim != first.dim or a.outer != first.outer for a in axes):
        return None
    return Axis(first.dim, first.outer, min(a.extent for a in axes))
