import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.core.records import from_json, to_json
from gnomon.measure.scenarios.recording import Recording
from gnomon.measure.scenarios.result import result
from gnomon.measure.scenarios.search import find_max_qps
from gnomon.spec.task import Scenario


def scenario(start=8.0, queries=500, **changes):
    return Scenario("server", target_qps=start, latency_bound_s=0.1, min_queries=queries, min_duration_s=0.0, **changes)


def system(limit_qps, tried):
    """A run at a rate: all queries take 1 ms up to the limit, and 1 s above it."""

    def attempt(qps):
        tried.append(qps)
        scheduled = np.arange(500, dtype=np.int64) * 10**6
        latency = 10**6 if qps <= limit_qps else 10**9
        done = scheduled + latency
        return result(scenario(qps), Recording(scheduled, scheduled, done, done - scheduled), sut="planted")

    return attempt


@given(st.floats(0.2, 1e5), st.floats(1.0, 100.0))
def test_the_search_finds_a_planted_limit_within_its_tolerance(limit, start):
    tried = []
    found = find_max_qps(system(limit, tried), scenario(start), most_runs=60)
    if limit < start / 2**6:
        assert found.outcome == "lowest-failed"
        return
    assert found.outcome == "found"
    assert found.valid_qps <= limit <= found.invalid_qps * (1 + 1e-12)
    assert found.invalid_qps - found.valid_qps <= 0.01 * found.valid_qps
    assert [t.qps for t in found.trials] == tried
    assert len(tried) == len(set(tried))


def test_it_doubles_first_and_bisects_then():
    tried = []
    find_max_qps(system(50, tried), scenario(8.0), tolerance=0.1)
    assert tried == [8, 16, 32, 64, 48, 56, 52]


def test_a_start_that_fails_is_halved():
    tried = []
    assert find_max_qps(system(3, tried), scenario(8.0), tolerance=0.4).valid_qps == 3.0
    assert tried == [8, 4, 2, 3]


def test_a_bound_that_is_never_missed_is_said():
    found = find_max_qps(system(1e12, []), scenario(), most_runs=5)
    assert (found.outcome, found.valid_qps, found.invalid_qps) == ("bound-never-missed", 128.0, None)
    assert "still holds at 128 queries/s, the highest rate tried in 5 runs" in found.said


def test_a_bound_that_is_always_missed_is_said():
    found = find_max_qps(system(0, []), scenario(64.0))
    assert (found.outcome, found.valid_qps, found.invalid_qps) == ("lowest-failed", None, 1.0)
    assert "missed even at 1 queries/s" in found.said


def test_runs_that_do_not_suffice_are_said():
    found = find_max_qps(system(50, []), scenario(8.0), most_runs=5)
    assert (found.outcome, found.valid_qps, found.invalid_qps) == ("runs-exhausted", 48.0, 64.0)
    assert "33.3%, and 1.0% was wanted" in found.said


def test_a_search_round_trips():
    found = find_max_qps(system(50, []), scenario(8.0), most_runs=5)
    assert from_json(to_json(found)) == found


def test_too_few_queries_for_any_verdict_are_refused_before_a_run():
    tried = []
    with pytest.raises(UsageError, match=r"min_queries is 458: the 99th percentile .* fewer than 459 queries"):
        find_max_qps(system(50, tried), scenario(queries=458))
    assert tried == []


def test_only_a_server_has_a_rate():
    with pytest.raises(UsageError, match="only scenario 'server'"):
        find_max_qps(system(50, []), Scenario("single-stream"))


@pytest.mark.parametrize("wrong", [{"tolerance": 0}, {"tolerance": 1.0}, {"most_runs": 1}])
def test_a_tolerance_or_number_of_runs_out_of_range_is_refused(wrong):
    with pytest.raises(UsageError, match="wanted a tolerance between 0 and 1 and at least 2 runs"):
        find_max_qps(system(50, []), scenario(), **wrong)
