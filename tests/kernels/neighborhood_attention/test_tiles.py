"""The tile counts: against counting in the dense mask, in limits, and against what is published."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.kernels.neighborhood_attention.problem import Problem
from gnomon.kernels.neighborhood_attention.published import CASES
from gnomon.kernels.neighborhood_attention.tiles import TilePair, count, rank, valid_pairs, valid_tiles


@st.composite
def problems(draw, largest):
    axes = draw(st.integers(1, 3))
    rows = []
    for _ in range(axes):
        n, d = draw(st.integers(1, largest)), draw(st.integers(1, 3))
        d = min(d, n)
        w = draw(st.integers(1, n // d))
        rows.append((n, w, draw(st.integers(1, w)), d, draw(st.booleans())))
    return Problem(*(tuple(column) for column in zip(*rows, strict=True)))


def place(problem, tile):
    """Of every token: its dilation group and the number of its tile within the group, along each axis."""
    grids = np.meshgrid(*(np.arange(n) for n in problem.space), indexing="ij")
    keys = [(g.ravel() % d, g.ravel() // d // t) for g, d, t in zip(grids, problem.dilation, tile, strict=True)]
    return list(zip(*(part for pair in keys for part in pair), strict=True))


def range_of_tiles(places, seen, axes):
    """Key tiles in the box that spans what is seen: the grid of tiles that a kernel walks."""
    walked = 1
    for axis in range(axes):
        at = [p[2 * axis + 1] for p, s in zip(places, seen, strict=True) if s]
        walked *= max(at) - min(at) + 1
    return walked


@given(problem=problems(largest=7), data=st.data())
def test_the_count_is_that_of_tiles_of_the_dense_mask_that_hold_a_pair(problem, data):
    axes = len(problem.space)
    query, kv = (tuple(data.draw(st.integers(1, 4)) for _ in range(axes)) for _ in range(2))
    mask, of_query, of_key = problem.mask(), place(problem, query), place(problem, kv)
    touched = full = 0
    size = np.prod(kv)
    for tile in set(of_query):
        rows = mask[[p == tile for p in of_query]]
        touched += range_of_tiles(of_key, rows.any(0), axes)
        seen_by_all = [p for p, seen in zip(of_key, rows.all(0), strict=True) if seen]
        full += sum(seen_by_all.count(p) == size for p in set(seen_by_all))
    found = count(problem, query, kv)
    assert (found.touched, found.full, found.pairs) == (touched, full, mask.sum())


def test_the_published_table_is_reproduced():
    table = [(round(c.counted.flop_bound, 1), round(c.counted.tile_bound, 1)) for c in CASES]
    assert table == [(16.0, 15.1), (16.0, 16.0), (16.0, 16.0), (10.2, 7.5), (10.2, 10.2), (11.1, 5.4), (11.1, 11.1)]
    assert table == [(c.flop_bound, c.tile_bound) for c in CASES]


def test_the_model_puts_the_strides_of_every_published_problem_in_their_measured_order():
    for a in CASES:
        for b in CASES:
            if a.problem.space == b.problem.space and a.counted.tile_bound < b.counted.tile_bound:
                assert a.speedup < b.speedup


def test_published_rates_and_speed_ups_tell_the_same_ratios():
    """Two columns of the source, of which neither was made from the other here."""
    for a, b in ((0, 1), (0, 2), (3, 4), (5, 6)):
        assert CASES[b].speedup / CASES[a].speedup == pytest.approx(CASES[b].flop_s / CASES[a].flop_s, rel=0.03)


@given(problem=problems(largest=40), data=st.data())
def test_no_tile_beats_the_flop_bound_and_single_tokens_reach_it(problem, data):
    tile = tuple(data.draw(st.integers(1, 16)) for _ in problem.space)
    found = count(problem, tile)
    assert found.computed_pairs >= found.pairs
    assert 0 <= found.wasted < 1
    assert found.full <= found.touched
    single = count(problem, (1,) * len(problem.space))
    assert single.computed_pairs == single.pairs == single.full
    assert single.share * single.flop_bound == pytest.approx(1)


@given(length=st.integers(1, 60), tile=st.integers(1, 20))
def test_a_window_that_covers_everything_leaves_nothing_to_gain(length, tile):
    found = count(Problem.of((length,), length), (tile,))
    assert found.tile_bound == found.flop_bound == 1


@pytest.mark.parametrize("tile", [1, 2, 4, 8])
def test_blocks_that_divide_the_stride_are_dense(tile):
    """Stride = window = 8: blocked attention, whose tiles are full."""
    found = count(Problem.of((64, 32), 8, 8), (tile, tile))
    assert found.tile_bound == found.flop_bound == 64 * 32 / 64
    assert found.full == found.touched


@given(length=st.integers(2, 50), dilation=st.integers(1, 4), data=st.data())
def test_dilation_is_a_problem_on_each_sub_grid(length, dilation, data):
    dilation = min(dilation, length)
    window = data.draw(st.integers(1, length // dilation))
    whole = count(Problem.of((length,), window, dilation=dilation), (4,), (8,))
    parts = [count(Problem.of((len(range(g, length, dilation)),), window), (4,), (8,)) for g in range(dilation)]
    assert whole.touched == sum(part.touched for part in parts)
    assert whole.pairs == sum(part.pairs for part in parts)


def test_a_tile_of_causal_attention_skips_the_keys_after_it():
    found = count(Problem.of((1024,), 1024, is_causal=True), (128,))
    assert found.touched == 8 * 9 // 2
    assert found.full == 8 * 7 // 2  # all but the diagonal


def test_tiles_of_a_size_are_listed_once_and_fit_their_axes():
    assert valid_tiles((256, 256), 8) == [(1, 8), (2, 4), (4, 2), (8, 1)]
    assert valid_tiles((256, 3), 8) == [(2, 4), (4, 2), (8, 1)]  # 4 is needed to hold 3; 8 would be padding
    assert valid_tiles((5,), 64) == []
    pairs = list(valid_pairs((64, 64), (64, 128), (32,)))
    assert len(pairs) == len(set(pairs)) == (7 + 6) * 6  # 128 tokens in a row do not fit


def test_ranks_put_the_least_work_first_and_prefer_tiles_without_a_mask():
    problem = Problem.of((30, 48, 80), (18, 24, 24))
    ranked = rank(problem, valid_pairs(problem.space))
    work = [found.computed_pairs for found in ranked]
    assert work == sorted(work)
    assert ranked[0].computed_pairs < count(problem, (2, 8, 8)).computed_pairs
    blocks = Problem.of((64,), 16, 16)
    assert rank(blocks, [TilePair((32,), (16,)), TilePair((16,), (16,))])[0].tiles.query == (16,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4,),), r"query_tile needs one positive size per axis of space \(8, 8\); got \(4,\)"),
        (((4, 0),), r"query_tile needs .* got \(4, 0\)"),
        (((4, 4), (4, 4, 4)), r"kv_tile needs .* got \(4, 4, 4\)"),
    ],
)
def test_a_tile_of_the_wrong_form_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        count(Problem.of((8, 8), 3), *arguments)


def test_sizes_that_are_no_power_of_two_and_empty_grids_are_refused():
    with pytest.raises(ValueError, match="elements must be a power of two; got 96"):
        valid_tiles((64,), 96)
    with pytest.raises(ValueError, match=r"space \(0, 4\) has no tokens"):
        count(Problem.of((0, 4), (1, 4)), (1, 1))
