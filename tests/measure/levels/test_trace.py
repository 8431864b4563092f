import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.measure.levels.trace import Times, cost_of, median_call, typical, typical_times
from gnomon.measure.record import Span
from gnomon.measure.timing import Sample


def _samples(walls):
    return [Sample(wall, wall, 0) for wall in walls]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_typical_calls_leave_out_equally_many_fast_and_slow_ones(walls):
    kept = typical(_samples(walls))
    dropped = (len(walls) - len(kept)) // 2
    assert dropped == len(walls) // 5
    assert sorted(walls[i] for i in kept) == sorted(walls)[dropped : len(walls) - dropped]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_the_median_call_has_as_many_slower_as_faster_ones(walls):
    middle = walls[median_call(_samples(walls))]
    assert middle == sorted(walls)[(len(walls) - 1) // 2]


def test_a_cost_is_a_median_with_its_standard_error_and_never_negative():
    cost = cost_of([1e-6, 2e-6, 3e-6], [-1e-6, -2e-6, -3e-6])
    assert cost.inside_s == 2e-6
    assert cost.total_s == 0.0
    assert cost.uncertainty_s == pytest.approx(1e-6 / 3**0.5)


def test_typical_times_are_medians_over_the_calls_with_the_same_spans():
    def call(*walls, name="a"):
        return [Span(name, "operator", 0.0, wall, None if wall > 8 else wall / 2, None) for wall in walls]

    times = typical_times([call(1.0, 5.0), call(2.0, 9.0), call(3.0, 7.0), call(9.0, 9.0, name="b")], call(0.0, 0.0))
    assert times == (Times(2.0, 1.0), Times(7.0, 3.0))
    assert typical_times([call(1.0)], call(1.0, 2.0)) == ()
