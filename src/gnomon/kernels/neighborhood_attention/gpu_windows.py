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
def tile_keys(first, last, n, w, S: tl.constexpr, CAUSAL: tl.constexpr, TILE: tl.constexpr):
    """The keys that the queries first..last see along one axis, and how many tiles cover them: (start, tiles)."""
    start, _ = window(first, n, w, S, CAUSAL)
    _, end = window(last, n, w, S, CAUSAL)
    return start, (end - start + TILE - 1) // TILE


@triton.jit
def tile_queries(first, last, n, w, S: tl.constexpr, CAUSAL: tl.constexpr, TILE: tl.constexpr):
    """The queries that see any of the keys first..last along one axis, and how many tiles cover them."""
    start, end = viewers(first, last, n, w, S, CAUSAL)
    return start, (end - start + TILE - 1) // TILE


@triton.jit
def all_see_all(first, last, key, n, w, S: tl.constexpr, CAUSAL: tl.constexpr, TILE: tl.constexpr):
    """Whether, along one axis, every query of first..last sees all TILE keys from `key` on."""
    start, _ = window(last, n, w, S, CAUSAL)
    _, end = window(first, n, w, S, CAUSAL)
    return (key >= start) & (key + TILE <= end)


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
def seen(start, end, key, AXES: tl.constexpr):
    """[queries, keys]: whether the key lies in the query's window on every axis."""
    mask = (key[2][None, :] >= start[2][:, None]) & (key[2][None, :] < end[2][:, None])
    if AXES >= 2:
        mask = mask & (key[1][None, :] >= start[1][:, None]) & (key[1][None, :] < end[1][:, None])
    if AXES >= 3:
        mask = mask & (key[0][None, :] >= start[0][:, None]) & (key[0][None, :] < end[0][:, None])
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
    source, strides, batch, head, first, place, group, n, d, extent,
    TILE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """[tokens, BLOCK_D]: a tile of one head, zero where there is no token or no feature.

    source: a descriptor of [batch, n0, n1, n2, heads x D], one box per tile, where TMA; else a pointer. WIDEN: to
    float32, because the interpreter multiplies bfloat16 wrongly.
    """
    ROWS: tl.constexpr = TILE[0] * TILE[1] * TILE[2]
    if TMA:
        block = source.load([batch, first[0], first[1], first[2], head * D]).reshape(ROWS, BLOCK_D)
    else:
        token, inside = tokens(place, group, n, d, extent)
        feature = tl.arange(0, BLOCK_D)
        at = source + batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2]
        at += token[:, None] * strides[1] + feature[None, :]
        if D == BLOCK_D:
            block = tl.load(at, mask=inside[:, None], other=0.0)
        else:
            block = tl.load(at, mask=inside[:, None] & (feature[None, :] < D), other=0.0)
    if WIDEN:
        block = block.to(tl.float32)
    return block
