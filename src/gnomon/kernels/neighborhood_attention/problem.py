"""Which keys a query of neighborhood attention sees: Hassani et al. 2024 (arXiv:2403.04690), stride and even windows as
in Hassani et al. 2025 (arXiv:2504.16922).

The window of a query is the product of its windows along each axis. Along an axis, dilation d splits the tokens into d
groups that never meet: token i is number i div d of group i mod d. Everything else happens in such group coordinates.
No torch here: the tile counts and the simulators read the same rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

MAX_AXES = 3

Ints = int | Sequence[int]
Bools = bool | Sequence[bool]
T = TypeVar("T", int, bool)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its length n, window w, stride s, dilation d, and whether keys after the query are hidden."""

    length: int
    window: int
    stride: int = 1
    dilation: int = 1
    is_causal: bool = False

    def group_length(self, group: int) -> int:
        """Tokens of a dilation group; groups differ by one where d does not divide n."""
        return (self.length - group + self.dilation - 1) // self.dilation

    def group_windows(self, group: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First key, and the one after the last, of every query of a group: int64 arrays in group coordinates.

        Queries of one stride group share the window of their leader. A bidirectional window shifts at the edges and
        keeps its w keys; a causal one is cut there and ends at the query.
        """
        n, w, s = self.group_length(group), self.window, self.stride
        query = np.arange(n, dtype=np.int64)
        if self.is_causal:
            leader = np.minimum(query // s * s + s - 1, n - 1)
            return np.maximum(leader - w + 1, 0), query + 1
        leader = np.minimum(query // s * s + s // 2, n - 1)
        start = np.clip(leader - w // 2, 0, n - w)  # an even window reaches one further to the left
        return start, start + w

    def windows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `group_windows`, for all tokens in their own order; bounds stay in group coordinates."""
        start, end = np.empty((2, self.length), dtype=np.int64)
        for group in range(self.dilation):
            start[group :: self.dilation], end[group :: self.dilation] = self.group_windows(group)
        return start, end

    def mask(self) -> NDArray[np.bool_]:
        """[n, n]: does the query (row) see the key (column)?"""
        token = np.arange(self.length)
        start, end = (bound[:, None] for bound in self.windows())
        group, place = token % self.dilation, token // self.dilation
        return (group[:, None] == group) & (start <= place) & (place < end)


@dataclass(frozen=True, slots=True)
class Problem:
    """A token grid of one to three axes and the window on it; checked, so that kernels need not check again.

    Raises ValueError naming the argument for what no window can be: w * d > n, s > w, sizes below 1.
    """

    space: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    is_causal: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.space) <= MAX_AXES:
            raise ValueError(f"space has {len(self.space)} axes; neighborhood attention wants 1 to {MAX_AXES}")
        for name in ("kernel_size", "stride", "dilation", "is_causal"):
            if len(getattr(self, name)) != len(self.space):
                raise ValueError(f"{name} {getattr(self, name)} needs one value per axis of space {self.space}")
        for i, (n, w, s, d) in enumerate(zip(self.space, self.kernel_size, self.stride, self.dilation, strict=True)):
            for name, value in (("space", n), ("kernel_size", w), ("stride", s), ("dilation", d)):
                if value < 1 and (name, value) != ("space", 0):
                    raise ValueError(f"{name} must be at least 1 on every axis; got {value} on axis {i}")
            if w * d > n > 0:
                raise ValueError(
                    f"kernel_size * dilation must fit into the axis; axis {i} has {n} tokens and {w} * {d} = {w * d}"
                )
            if s > w:
                raise ValueError(f"stride must not be larger than kernel_size; axis {i} has stride {s}, window {w}")

    @classmethod
    def of(
        cls,
        space: Sequence[int],
        kernel_size: Ints,
        stride: Ints = 1,
        dilation: Ints = 1,
        is_causal: Bools = False,
    ) -> "Problem":
        """The problem on `space`; one value stands for every axis. Raises ValueError naming the argument."""
        axes = len(space)
        return cls(
            tuple(int(n) for n in space),
            _per_axis("kernel_size", kernel_size, axes, int),
            _per_axis("stride", stride, axes, int),
            _per_axis("dilation", dilation, axes, int),
            _per_axis("is_causal", is_causal, axes, bool),
        )

    @property
    def tokens(self) -> int:
        return prod(self.space)

    @property
    def is_dense(self) -> bool:
        """Every query sees every key."""
        return self.kernel_size == self.space and not any(self.is_causal)

    @property
    def axes(self) -> tuple[Axis, ...]:
        rows = zip(self.space, self.kernel_size, self.stride, self.dilation, self.is_causal, strict=True)
        return tuple(Axis(*row) for row in rows)

    def pairs(self) -> int:
        """Query-key pairs that are seen: what one head multiplies, twice D times for the scores alone."""
        return prod(int((end - start).sum()) for start, end in (axis.windows() for axis in self.axes))

    def mask(self) -> NDArray[np.bool_]:
        """[tokens, tokens]: does the query (row) see the key (column)? The tokens in row-major order of `space`."""
        mask = np.ones((1, 1), dtype=bool)
        for axis in self.axes:
            mask = np.kron(mask, axis.mask())
        return mask


def _per_axis(name: str, value: T | Sequence[T], axes: int, kind: type[T]) -> tuple[T, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    for one in values:
        if not _is(one, kind):
            raise ValueError(f"{name} must be {kind.__name__} or one {kind.__name__} per axis; got {value!r}")
    if len(values) != axes:
        raise ValueError(f"{name} needs one value, or one for each of {axes} axes; got {value!r}")
    return tuple(kind(one) for one in values)


def _is(value: object, kind: type) -> bool:
    """bool is an int to Python, but no window is True tokens wide."""
    if kind is bool:
        return isinstance(value, bool)
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
