"""How much of dense attention a kernel that works tile by tile still computes for a neighborhood-attention problem.

A kernel takes a tile of queries and walks the tiles of keys that any of its queries sees; tiles lie on a fixed grid, in
the coordinates of one dilation group (token permutation of Generalized Neighborhood Attention, arXiv:2504.16922). Then

    tile bound = query tiles x key tiles / sum over query tiles of (product over axes of key tiles touched),

the least speed-up that can be lost to tiles: FLOP bound / tile bound is the work done for nothing. The sum of products
is a product of sums, because each axis and each dilation group stands for itself, so the count is exact and cheap.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

from gnomon.kernels.neighborhood_attention.problem import Axis, Problem

Tile = tuple[int, ...]
USUAL_ELEMENTS = (64, 128, 256)  # queries, and keys, that today's attention kernels hold in one tile


class TilePair(NamedTuple):
    """Extent, along each axis, of a tile of queries and of a tile of keys and values."""

    query: Tile
    kv: Tile


class _Visits(NamedTuple):
    touched: int  # pairs of a query tile and a key tile that meet, along one axis
    full: int  # of these, the ones in which every query sees every key
    dense: int  # pairs without a window: query tiles x key tiles


@dataclass(frozen=True, slots=True)
class TileCount:
    """Tiles of one head. dense: pairs of tiles without a window. touched: pairs that a kernel computes. full: of these,
    the ones that need no mask. pairs: query-key pairs that the problem asks for. tokens: n.
    """

    tiles: TilePair
    dense: int
    touched: int
    full: int
    pairs: int
    tokens: int

    @property
    def flop_bound(self) -> float:
        """Speed-up over dense attention if no pair were computed in vain."""
        return self.tokens**2 / self.pairs

    @property
    def tile_bound(self) -> float:
        """Speed-up over a dense kernel with the same tiles."""
        return self.dense / self.touched

    @property
    def computed_pairs(self) -> int:
        """Query-key pairs in the tiles that are touched: those asked for, masked ones, and padding."""
        return self.touched * prod(self.tiles.query) * prod(self.tiles.kv)

    @property
    def share(self) -> float:
        """Computed pairs over n^2: what is left of the arithmetic of a dense kernel that pads nothing."""
        return self.computed_pairs / self.tokens**2

    @property
    def wasted(self) -> float:
        """Share of the computed pairs that nobody asked for, in [0, 1)."""
        return 1 - self.pairs / self.computed_pairs

    @property
    def unmasked(self) -> float:
        """Share of the touched tiles in which a kernel needs no mask."""
        return self.full / self.touched


def count(problem: Problem, query_tile: Sequence[int], kv_tile: Sequence[int] | None = None) -> TileCount:
    """Count the tiles of a problem exactly. kv_tile: as query_tile when not given.

    Raises ValueError naming the argument for a tile that has not one positive size per axis, or a space without tokens.
    """
    pair = TilePair(
        _checked("query_tile", query_tile, problem),
        _checked("kv_tile", query_tile if kv_tile is None else kv_tile, problem),
    )
    if problem.tokens == 0:
        raise ValueError(f"space {problem.space} has no tokens, so there is no tile to count")
    visits = [_visits(axis, *sizes) for axis, *sizes in zip(problem.axes, *pair, strict=True)]
    return TileCount(
        tiles=pair,
        dense=prod(v.dense for v in visits),
        touched=prod(v.touched for v in visits),
        full=prod(v.full for v in visits),
        pairs=problem.pairs(),
        tokens=problem.tokens,
    )


def valid_tiles(space: Sequence[int], elements: int) -> list[Tile]:
    """Every tile of `elements` tokens whose sides are powers of two, none twice as long as its axis needs.

    Raises ValueError when elements is no power of two. The list is empty when the grid is too small for such a tile.
    """
    if elements < 1 or elements & (elements - 1):
        raise ValueError(f"elements must be a power of two; got {elements}")
    sides = [[2**i for i in range(elements.bit_length()) if 2**i < 2 * n] for n in space]
    return [tile for tile in itertools.product(*sides) if prod(tile) == elements]


def valid_pairs(
    space: Sequence[int], query_elements: Sequence[int] = (128,), kv_elements: Sequence[int] = (128,)
) -> Iterator[TilePair]:
    """Every combination of valid tiles of these sizes. Raises ValueError as `valid_tiles`."""
    for queries, keys in itertools.product(query_elements, kv_elements):
        for tiles in itertools.product(valid_tiles(space, queries), valid_tiles(space, keys)):
            yield TilePair(*tiles)


def rank(problem: Problem, pairs: Iterable[TilePair]) -> list[TileCount]:
    """The counts of these tiles, the least computed work first; among equals, the one that masks fewer tiles.

    Large tiles reuse what they load, which no count sees: compare tiles of one size, or let a measurement choose.
    """
    counts = [count(problem, pair.query, pair.kv) for pair in pairs]
    return sorted(counts, key=lambda c: (c.computed_pairs, -c.unmasked, c.tiles))


@lru_cache(maxsize=4096)
def _visits(axis: Axis, query_tile: int, kv_tile: int) -> _Visits:
    """Along one axis. Windows only move to the right, so a tile's first and last query bound what it sees."""
    touched = full = 0
    for group in range(axis.dilation):
        start, end = axis.group_windows(group)
        n = len(start)
        first = slice(None, None, query_tile)
        last = [min(i + query_tile, n) - 1 for i in range(0, n, query_tile)]
        touched += int((-(-end[last] // kv_tile) - start[first] // kv_tile).sum())
        inside = end[first] // kv_tile - -(-start[last] // kv_tile)
        full += int(inside.clip(min=0).sum())
    tiles = -(-axis.length // query_tile), -(-axis.length // kv_tile)
    return _Visits(touched, full, tiles[0] * tiles[1])


def _checked(name: str, tile: Sequence[int], problem: Problem) -> Tile:
    if len(tile) != len(problem.space) or any(size < 1 for size in tile):
        raise ValueError(f"{name} needs one positive size per axis of space {problem.space}; got {tuple(tile)}")
    return tuple(tile)
