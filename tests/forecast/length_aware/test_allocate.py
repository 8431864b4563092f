"""Stages by priority and their shares of the resource."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.forecast.length_aware.allocate import allocate, by_name
from gnomon.forecast.length_aware.arrangements import NATURAL
from gnomon.forecast.length_aware.operators import chain, encoder

works = st.lists(st.integers(1, 50), min_size=1, max_size=7)


def line(numbers):
    return chain({f"v{i}": lambda s, n=n: n * s for i, n in enumerate(numbers)})


@given(numbers=works, stages=st.integers(1, 4), budget=st.integers(7, 60))
def test_every_operator_is_in_one_stage_in_its_order_and_every_unit_is_given(numbers, stages, budget):
    found = allocate(line(numbers), 10.0, budget, stages)
    assert [one.name for stage in found for one in stage.operators] == [f"v{i}" for i in range(len(numbers))]
    assert len(found) <= stages
    assert sum(stage.units for stage in found) == budget
    assert all(stage.units >= 1 for stage in found)


@given(numbers=works, stages=st.integers(1, 4))
def test_no_other_cut_has_a_smaller_largest_stage(numbers, stages):
    best = min(
        max(sum(numbers[a:b]) for a, b in itertools.pairwise((0, *cuts, len(numbers))))
        for count in range(min(stages, len(numbers)))
        for cuts in itertools.combinations(range(1, len(numbers)), count)
    )
    assert max(stage.work(1.0) for stage in allocate(line(numbers), 1.0, 100, stages)) == best


@given(s_avg=st.integers(8, 1000), stages=st.integers(1, 5), top_k=st.sampled_from([None, 16, 64]))
def test_stages_of_an_encoder_take_the_same_time_at_the_average_length(s_avg, stages, top_k):
    budget = 100_000
    times = [stage.seconds(s_avg) for stage in allocate(encoder(top_k=top_k), s_avg, budget, stages)]
    assert max(times) / min(times) < 1 + 50 * stages / budget * 10


def test_a_stage_of_attention_falls_behind_at_other_lengths():
    attention = by_name(encoder(top_k=None), NATURAL, 128, 10_000)
    long, average = ([stage.seconds(s) for stage in attention] for s in (512, 128))
    assert max(average) / min(average) < 1.01
    assert long[1] / long[0] == pytest.approx(4, rel=0.01)  # its work grows with the square


def test_a_target_that_every_operator_exceeds_gives_each_a_stage():
    assert len(allocate(line([5, 6, 7]), 1.0, 10, target=1.0)) == 3
    assert len(allocate(line([5, 6, 7]), 1.0, 10, target=11.0)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"s_avg": 0, "budget": 3}, "s_avg must be positive; got 0"),
        ({"s_avg": 10, "budget": 3, "stages": 0}, "stages must be at least 1; got 0"),
        ({"s_avg": 10, "budget": 2, "stages": 3}, "budget must give each of the 3 stages a unit; got 2"),
    ],
)
def test_what_cannot_be_allocated_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        allocate(encoder(), **arguments)


def test_a_cut_must_hold_every_operator_once():
    with pytest.raises(ValueError, match="cut must put each of v0, v1 into one stage"):
        by_name(line([1, 2]), [["v0"]], 1.0, 3)
    with pytest.raises(ValueError, match="cut must put each"):
        by_name(line([1, 2]), [["v0", "v1"], ["v1"]], 1.0, 3)
