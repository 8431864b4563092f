"""Symbolic shapes: one size per name. `[B, 3, S, S]` and `[8, 3, 224, 224]` agree with B = 8 and S = 224."""

from collections.abc import Mapping, Sequence

Shape = Sequence[int | str]


def unify(wanted: Shape, found: Shape, dims: Mapping[str, int]) -> dict[str, int]:
    """The sizes that make two shapes equal, added to `dims` (which wins when it already has a name).

    Raises ValueError naming the axis and the dimension when the shapes cannot be equal.
    """
    if len(wanted) != len(found):
        raise ValueError(f"wanted {len(wanted)} axes {show(wanted)}, got {len(found)} axes {show(found)}")
    solved = dict(dims)
    for axis, (a, b) in enumerate(zip(wanted, found, strict=True)):
        left, right = _size(a, solved), _size(b, solved)
        if isinstance(left, int) and isinstance(right, int):
            if left != right:
                raise ValueError(f"axis {axis}: wanted {_named(a, left)}, got {_named(b, right)}")
        elif isinstance(left, str) and isinstance(right, int):
            solved[left] = right
        elif isinstance(right, str) and isinstance(left, int):
            solved[right] = left
        elif left != right:
            raise ValueError(f"axis {axis}: neither {left} nor {right} has a size; give one in spec.dims")
    return solved


def show(shape: Shape) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _size(axis: int | str, dims: Mapping[str, int]) -> int | str:
    return dims.get(axis, axis) if isinstance(axis, str) else axis


def _named(axis: int | str, size: int) -> str:
    return f"{axis} = {size}" if isinstance(axis, str) else str(size)
