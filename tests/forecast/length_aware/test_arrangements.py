"""Padded, sparse, sorted and buffered batches side by side, against what the method's card measured."""

import pytest

from gnomon.forecast.length_aware.arrangements import PUBLISHED, Setting, draw_lengths, run_all, summary


@pytest.fixture(scope="module")
def rows():
    draws = [run_all(draw_lengths(16, 120, 0.6, seed)) for seed in range(20)]
    return {row.name: row for row in summary(draws)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_figures_of_the_card_come_back(rows, name):
    """Means over 20 draws of 16 lengths move by some 5 % between seeds."""
    speedup, useful = PUBLISHED[name]
    assert rows[name].speedup == pytest.approx(speedup, rel=0.08)
    assert rows[name].useful == pytest.approx(useful, abs=0.04)


def test_sorting_matters_only_while_stages_block(rows):
    blocked = rows["sparse sorted"].speedup / rows["sparse"].speedup
    buffered = rows["sparse sorted buffered"].speedup / rows["sparse buffered"].speedup
    assert blocked > 1.15
    assert buffered < 1.05


def test_equal_lengths_leave_nothing_for_padding_or_sorting():
    runs = run_all([100] * 16, Setting(layers=2))
    assert runs["dense"].makespan_s == pytest.approx(runs["dense padded"].makespan_s)
    assert len({runs[name].makespan_s for name in ("sparse", "sparse sorted", "sparse padded")}) == 1


def test_stages_by_priority_take_the_place_of_the_natural_cut():
    found = run_all([100, 50], Setting(layers=1, stages=2))["sparse"]
    assert [name.split(" + ")[0] for name in found.stages] == ["qkv", "ffn 1"]


def test_the_same_seed_draws_the_same_lengths_within_bounds():
    found = draw_lengths(200, 120, 2.0, seed=3, least=10, most=300)
    assert found == draw_lengths(200, 120, 2.0, seed=3, least=10, most=300)
    assert (min(found), max(found)) == (10, 300)
    assert draw_lengths(3, 50, 0, seed=0) == [50, 50, 50]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="count must be at least 1; got 0"):
        draw_lengths(0, 120, 0.6, 0)
    with pytest.raises(ValueError, match=r"got median=120, sigma=0\.6, least=9, most=8"):
        draw_lengths(4, 120, 0.6, 0, least=9, most=8)
    with pytest.raises(ValueError, match="draws must hold at least one"):
        summary([])
