"""What the Triton kernels of neighborhood attention share: windows of a tile, their inverse, and loads of tiles.

Everything is computed from the problem's parameters inside the kernel; no mask or table of ranges is ever in memory.
The rules are those of `problem.py`, in coordinates of one dilation group. Every problem has three axes here: those that
are missing come first and have length 1, and `AXES` says how many are real, so that the others cost nothing.
n, w, s, d: length, window, stride and dilation of an axis. A tile is a box of tokens, its sides powers of two.
"""

# mypy: allow-incomplete-defs
# only constexpr parameters of a kernel are annotated: to Triton, any other annotation is the type of an argument

import triton
import triton.language as tl

from gnomon.kernels._triton_attention import load_rows, store_rows


@triton.jit
def window(query, n, w, s: tl.constexpr, causal: tl.constexpr):
    """First key, and the one after the last, that a query sees along one axis. Both never fall as the query rises."""
    if causal:
        leader = tl.minimum(query // s * s + s - 1, n - 1)
        start = tl.maximum(leader - w + 1, 0)
        end = query + 1
    else:
        leader = tl.minimum(query // s * s + s // 2, n - 1)
        start = tl.minimum(tl.maximum(leader - w // 2, 0), n - w)
        end = start + w
    return start, end


@triton.jit
def viewers(first, last, n, w, s: tl.constexpr, causal: tl.constexpr):
    """First query, and the one after the last, that sees any of the keys first..last along one axis.

    Found by turning the rules of `window` around: a query sees one of them if its window starts at or before `last` and
    ends after `first`.
    """
    if causal:
        start = first
        # the leader of the last group that reaches back to `last` is at last + w - 1 at most
        end = tl.where(n - 1 <= last + w - 1, n, (last + w) // s * s)
    else:
        reach = w // 2 - s // 2  # of a leader to the left of its group's start; not negative, since s <= w
        start = tl.where(first < w, 0, (first - w + 1 + reach + s - 1) // s * s)
        end = tl.where(last >= n - w, n, ((last + reach) // s + 1) * s)
    return start, tl.minimum(end, n)


@triton.jit
def keys_seen(first, last, extent, w, S: tl.constexpr, CAUSAL: tl.constexpr, TILE: tl.constexpr):
    """The tiles of keys that cover what the queries first..last see: where they start, and how many on each axis."""
    start0, _ = window(first[0], extent[0], w[0], S[0], CAUSAL[0])
    start1, _ = window(first[1], extent[1], w[1], S[1], CAUSAL[1])
    start2, _ = window(first[2], extent[2], w[2], S[2], CAUSAL[2])
    _, end0 = window(last[0], extent[0], w[0], S[0], CAUSAL[0])
    _, end1 = window(last[1], extent[1], w[1], S[1], CAUSAL[1])
    _, end2 = window(last[2], extent[2], w[2], S[2], CAUSAL[2])
    return (start0, start1, start2), (
        tl.cdiv(end0 - start0, TILE[0]),
        tl.cdiv(end1 - start1, TILE[1]),
        tl.cdiv(end2 - start2, TILE[2]),
    )


@triton.jit
def queries_seeing(first, last, extent, w, S: tl.constexpr, CAUSAL: tl.constexpr, TILE: tl.constexpr):
    """The tiles of queries that cover those that see any key of first..last, as `keys_seen`."""
    start0, end0 = viewers(first[0], last[0], extent[0], w[0], S[0], CAUSAL[0])
    start1, end1 = viewers(first[1], last[1], extent[1], w[1], S[1], CAUSAL[1])
    start2, end2 = viewers(first[2], last[2], extent[2], w[2], S[2], CAUSAL[2])
    return (start0, start1, start2), (
        tl.cdiv(end0 - start0, TILE[0]),
        tl.cdiv(end1 - start1, TILE[1]),
        tl.cdiv(end2 - start2, TILE[2]),
    )


@triton.jit
def all_see_all(
    first, last, key, extent, w,
    S: tl.constexpr, CAUSAL: tl.constexpr, TILE_K: tl.constexpr, AXES: tl.constexpr,
):  # fmt: skip
    """Whether every query of first..last sees the whole tile of keys that begins at `key`: then it needs no mask."""
    start, _ = window(last[2], extent[2], w[2], S[2], CAUSAL[2])
    _, end = window(first[2], extent[2], w[2], S[2], CAUSAL[2])
    answer = (key[2] >= start) & (key[2] + TILE_K[2] <= end)
    if AXES >= 2:
        start, _ = window(last[1], extent[1], w[1], S[1], CAUSAL[1])
        _, end = window(first[1], extent[1], w[1], S[1], CAUSAL[1])
        answer = answer & (key[1] >= start) & (key[1] + TILE_K[1] <= end)
    if AXES >= 3:
        start, _ = window(last[0], extent[0], w[0], S[0], CAUSAL[0])
        _, end = window(first[0], extent[0], w[0], S[0], CAUSAL[0])
        answer = answer & (key[0] >= start) & (key[0] + TILE_K[0] <= end)
    return answer


@triton.jit
def work(index, heads, n, d, tiles, TILE: tl.constexpr):
    """What a program works on: (batch, head, dilation group, lengths of that group, first and last token of its tile).

    index: tiles fastest, so that neighbors share keys in the cache, then heads, groups and batch. A tile may lie wholly
    outside of a short dilation group; then its last token is before its first on some axis.
    """
    count = tiles[0] * tiles[1] * tiles[2]
    tile = split(index % count, tiles[0], tiles[1], tiles[2])
    index = index // count
    head = index % heads
    index = index // heads
    groups = d[0] * d[1] * d[2]
    group = split(index % groups, d[0], d[1], d[2])
    batch = index // groups
    extent = (
        (n[0] - group[0] + d[0] - 1) // d[0],
        (n[1] - group[1] + d[1] - 1) // d[1],
        (n[2] - group[2] + d[2] - 1) // d[2],
    )
    first = (tile[0] * TILE[0], tile[1] * TILE[1], tile[2] * TILE[2])
    return batch, head, group, extent, first, last_of(first, extent, TILE)


@triton.jit
def last_of(first, extent, TILE: tl.constexpr):
    """Last token of a tile that exists, on each axis."""
    return (
        tl.minimum(first[0] + TILE[0], extent[0]) - 1,
        tl.minimum(first[1] + TILE[1], extent[1]) - 1,
        tl.minimum(first[2] + TILE[2], extent[2]) - 1,
    )


@triton.jit
def steps(first, last, count):
    """Tiles to walk: all of them, or none for a tile without tokens."""
    is_empty = (last[0] < first[0]) | (last[1] < first[1]) | (last[2] < first[2])
    return tl.where(is_empty, 0, count[0] * count[1] * count[2])


@triton.jit
def step_to(index, low, count, TILE: tl.constexpr):
    """First token of the index-th tile of a walk."""
    step = split(index, count[0], count[1], count[2])
    return (low[0] + step[0] * TILE[0], low[1] + step[1] * TILE[1], low[2] + step[2] * TILE[2])


@triton.jit
def split(index, a, b, c):
    """Place of a tile among a x b x c tiles; a is only the outermost count."""
    return index // (b * c), index // c % b, index % c


@triton.jit
def places(first, TILE: tl.constexpr):
    """Coordinates of a tile's tokens in row-major order: three vectors, one per axis."""
    row = tl.arange(0, TILE[0] * TILE[1] * TILE[2])
    return (
        first[0] + row // (TILE[1] * TILE[2]),
        first[1] + row // TILE[2] % TILE[1],
        first[2] + row % TILE[2],
    )


@triton.jit
def tokens(place, group, n, d, extent):
    """Number of each token in the whole grid as int64, and whether it exists."""
    inside = (place[0] < extent[0]) & (place[1] < extent[1]) & (place[2] < extent[2])
    row = (place[0] * d[0] + group[0]).to(tl.int64) * n[1] + place[1] * d[1] + group[1]
    return row * n[2] + place[2] * d[2] + group[2], inside


@triton.jit
def within(start, end, key, TRANSPOSED: tl.constexpr):
    """Whether each key lies in each query's window along one axis: [queries, keys], or [keys, queries]."""
    if TRANSPOSED:
        return (key[:, None] >= start[None, :]) & (key[:, None] < end[None, :])
    else:
        return (key[None, :] >= start[:, None]) & (key[None, :] < end[:, None])


@triton.jit
def seen(start, end, key, AXES: tl.constexpr, TRANSPOSED: tl.constexpr):
    """`within` on every axis."""
    mask = within(start[2], end[2], key[2], TRANSPOSED)
    if AXES >= 2:
        mask = mask & within(start[1], end[1], key[1], TRANSPOSED)
    if AXES >= 3:
        mask = mask & within(start[0], end[0], key[0], TRANSPOSED)
    return mask


@triton.jit
def windows(place, extent, w, S: tl.constexpr, CAUSAL: tl.constexpr):
    """`window` of every token of a tile: starts and ends, three vectors each."""
    start0, end0 = window(place[0], extent[0], w[0], S[0], CAUSAL[0])
    start1, end1 = window(place[1], extent[1], w[1], S[1], CAUSAL[1])
    start2, end2 = window(place[2], extent[2], w[2], S[2], CAUSAL[2])
    return (start0, start1, start2), (end0, end1, end2)


@triton.jit
def bias_row(place, w):
    """Place of a token on the axes of the bias table, so that table[row(key) - row(query) + middle] is their bias."""
    return (place[0] * (2 * w[1] - 1) + place[1]) * (2 * w[2] - 1) + place[2]


@triton.jit
def load_tile(
    source, strides, batch, head, first, token, inside,
    TILE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """[tokens, BLOCK_D]: a tile of one head, zero where there is no token or no feature.

    source: a descriptor of [batch, n0, n1, n2, heads x D] where TMA, whose box begins at `first`; else a pointer that
    `token` and `inside` index. WIDEN: to float32, because the interpreter multiplies bfloat16 wrongly.
    """
    if TMA:
        rows: tl.constexpr = TILE[0] * TILE[1] * TILE[2]
        block = source.load([batch, first[0], first[1], first[2], head * D]).reshape(rows, BLOCK_D)
        if WIDEN:
            block = block.to(tl.float32)
        return block
    else:
        row = batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2] + token * strides[1]
        return load_rows(source, row, inside, D, BLOCK_D, WIDEN)


@triton.jit
def store_tile(target, block, row, inside, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write [tokens, BLOCK_D] to the rows of a contiguous tensor."""
    store_rows(target, block, row * D, inside, D, BLOCK_D)
