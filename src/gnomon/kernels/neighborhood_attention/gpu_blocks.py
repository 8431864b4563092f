"""Which boxes of tokens the Triton kernels take as tiles of queries and of keys.

The kernels walk keys from the first one that a tile of queries sees, so a walk along one axis takes ceil(span / side)
steps, span being that of the tile's first to last window. The number of steps in all is a product over axes, so that
every shape of a block is cheap to judge. No Triton here.
"""

import itertools
from collections.abc import Iterator
from functools import lru_cache
from math import prod

from gnomon.kernels.neighborhood_attention.problem import Axis, Problem

Tile = tuple[int, int, int]
AXES = 3
MASKED = 0.3  # a masked pair of tiles costs this much more than a full one: compares and selects beside the products


def three(values: tuple[int, ...], missing: int = 1) -> Tile:
    """Values per axis for the kernels, which have three axes: the missing ones come first."""
    first, second, third = (*(missing,) * (AXES - len(values)), *values)
    return first, second, third


@lru_cache(maxsize=1024)
def tiles(problem: Problem, walkers: int, walked: int, is_inverse: bool = False) -> tuple[Tile, Tile]:
    """Shapes of a tile that a program stays with and of one that it walks over, of these many tokens, at least work.

    is_inverse: programs stay with keys and walk the queries that see them; else the other way round.
    """
    axes = [Axis(1, 1)] * (AXES - len(problem.space)) + list(problem.axes)
    best = min(
        itertools.product(_shapes(axes, walkers), _shapes(axes, walked)),
        # among equals the longer side in the last axis, where tokens are neighbors in memory
        key=lambda pair: (
            _cost(axes, pair[0], pair[1], is_inverse),
            [-side for tile in pair for side in reversed(tile)],
        ),
    )
    return best


def _shapes(axes: list[Axis], elements: int) -> Iterator[Tile]:
    """Boxes of `elements` tokens with sides that are powers of two. Only the last axis may be longer than it needs."""
    sides = [2**i for i in range(elements.bit_length())]
    limits = [max(1, axis.group_length(0)) for axis in axes]
    for first, second in itertools.product(sides, sides):
        if first * second <= elements and first < 2 * limits[0] and second < 2 * limits[1]:
            yield first, second, elements // (first * second)


def _cost(axes: list[Axis], walker: Tile, walked: Tile, is_inverse: bool) -> float:
    """Pairs of tiles that meet, those that need a mask counted a little more."""
    walks = [_walk(*sizes, is_inverse) for sizes in zip(axes, walker, walked, strict=True)]
    steps, full = prod(step for step, _ in walks), prod(full for _, full in walks)
    return steps + MASKED * (steps - full)


@lru_cache(maxsize=8192)
def _walk(axis: Axis, walker: int, walked: int, is_inverse: bool) -> tuple[int, int]:
    """(steps, full): along one axis, the steps of all walkers, and those in which every query sees every key."""
    steps = full = 0
    lengths = [axis.group_length(group) for group in range(axis.dilation)]
    for length in set(lengths):
        start, end = axis.group_windows(lengths.index(length))
        times = lengths.count(length)
        for first in range(0, length, walker):
            last = min(first + walker, length) - 1
            if is_inverse:
                low, high = int(end.searchsorted(first, "right")), int(start.searchsorted(last, "right"))
            else:
                low, high = int(start[first]), int(end[last])
            steps += times * -(-(high - low) // walked)
            for at in range(low, high, walked):
                if is_inverse:
                    query, key = (at, min(at + walked, length) - 1), (first, first + walker)
                else:
                    query, key = (first, last), (at, at + walked)
                full += times * bool(start[query[1]] <= key[0] and key[1] <= end[query[0]])
    return steps, full
