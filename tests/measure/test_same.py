import math

import pytest

from gnomon.core.errors import UsageError
from gnomon.core.records import from_json, to_json
from gnomon.measure.same import SameCheck, check_same
from tests.measure import tasks
from tests.measure.test_compare import Machine


def same(trials=10, sessions=3, spread=0.01, bias=1.0, **options):
    machine = Machine({"A": 1.0, "A again": bias}, spread=spread)
    return check_same(tasks.linear(), trials=trials, sessions=sessions, run=machine, **options), machine


def test_no_session_serves_two_trials():
    (found, comparison), machine = same(trials=5, sessions=4)
    assert len(machine.asked) == 20
    assert (found.trials, found.sessions, found.overall.speedup.n) == (5, 4, 20)
    assert found.overall == comparison.ratios["A again"]


def test_a_task_differs_from_itself_about_one_time_in_twenty():
    (found, _), _ = same(trials=200, spread=0.05)  # far beyond the margin, so nothing is called equal
    assert 0.02 < found.different.value < 0.09
    assert found.different.low < 0.05 < found.different.high


def test_a_bias_between_the_sides_is_found():
    (found, _), _ = same(trials=20, bias=1.1)
    assert found.different.value > 0.9
    assert found.overall.verdict == "slower"


def test_the_spread_of_a_ratio_and_what_can_be_seen_are_told():
    (found, _), _ = same(trials=100, spread=0.02)
    assert found.ratio_spread.value == pytest.approx(0.02 * math.sqrt(2), rel=0.2)  # both sides have a spread
    assert found.between.value > 3 * found.ratio_spread.value  # what a process does to both cancels in the ratio
    assert found.detectable(3) > found.detectable(5) > found.detectable(20)


def test_apart_each_side_has_processes_of_its_own():
    (found, comparison), machine = same(trials=4, apart=True)
    assert found.pairs == comparison.pairs == "sessions"
    assert len(machine.asked) == 24
    assert found.ratio_spread.value > 0.05  # and what a process does no longer cancels


def test_a_check_survives_storage():
    (found, _), _ = same(trials=3)
    assert from_json(to_json(found), SameCheck) == found


@pytest.mark.parametrize(("trials", "sessions"), [(0, 3), (3, 1)])
def test_too_few_are_refused(trials, sessions):
    with pytest.raises(UsageError, match="at least 1 trial of at least 2 sessions"):
        same(trials, sessions)
