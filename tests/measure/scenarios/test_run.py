import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest

from gnomon.core.errors import CheckFailed, NotRunnable
from gnomon.measure.clock import Clock
from gnomon.measure.scenarios.arrivals import poisson_ns
from gnomon.measure.scenarios.run import run
from gnomon.measure.scenarios.systems import Queued, Serial
from gnomon.spec.task import Scenario

MS = 10**6


class World:
    """A clock that only work and sleep move."""

    def __init__(self):
        self.now, self.slept = 5 * 10**9, 0

    def wall_ns(self):
        return self.now

    def sleep(self, seconds):
        self.slept += 1
        self.now += max(1, round(seconds * 1e9))

    def work(self, *ms):
        """A function that takes ms[0] milliseconds at its first call, and so on, round and round."""
        turn = iter(range(10**9))

        def one(samples):
            self.now += round(ms[next(turn) % len(ms)] * MS)

        return one

    def run(self, scenario, system, samples=10, **more):
        return run(scenario, system, samples, clock=Clock(wall_ns=self.wall_ns), sleep=self.sleep, **more)


def server(**changes):
    return Scenario("server", **{"target_qps": 100.0, "latency_bound_s": 0.05, "min_duration_s": 0.0, **changes})


def test_single_stream_issues_the_next_query_when_the_last_is_done():
    world = World()
    got = world.run(Scenario("single-stream", min_queries=6, min_duration_s=0.0), Serial(world.work(1, 2)))
    assert got.latencies.tolist() == [MS, 2 * MS] * 3
    assert got.issued.tolist() == [0, MS, 3 * MS, 4 * MS, 6 * MS, 7 * MS]
    assert (got.lag == 0).all()


def test_a_stream_ends_when_queries_and_duration_are_both_reached():
    world = World()
    got = world.run(Scenario("single-stream", min_queries=3, min_duration_s=0.01), Serial(world.work(1)))
    assert len(got.issued) == 11  # the query that is issued 10 ms after the start is the last
    assert got.ending == "natural"


@pytest.mark.parametrize(("limit", "queries"), [({"max_queries": 4}, 4), ({"max_duration_s": 0.0065}, 8)])
def test_a_limit_ends_a_run_early(limit, queries):
    scenario = Scenario("single-stream", min_queries=4, min_duration_s=0.0065, **limit)
    world = World()
    got = world.run(replace(scenario, min_queries=4 if "max_queries" in limit else 100), Serial(world.work(1)))
    assert (len(got.issued), got.ending) == (queries, "limit")


def test_a_multi_stream_query_holds_samples_that_follow_each_other():
    world, seen = World(), []
    scenario = Scenario("multi-stream", samples_per_query=4, min_queries=5, min_duration_s=0.0)
    got = world.run(scenario, Serial(lambda samples: seen.append(samples) or world.sleep(1e-3)), samples=6)
    assert len(got.sample_latencies) == 20
    assert all([(b - a) % 6 for a, b in itertools.pairwise(q)] == [1, 1, 1] for q in seen)


def test_server_latency_counts_from_the_arrival_whatever_the_system_does():
    world = World()
    got = world.run(server(min_queries=50), Serial(world.work(20)))  # it works at half the rate of arrivals
    arrivals = poisson_ns(100.0, 50, 0.0, seed=0)
    done = 0
    for at, latency in zip(arrivals.tolist(), got.latencies.tolist(), strict=True):
        done = max(done, at) + 20 * MS  # a queue with one server
        assert latency == done - at
    assert (got.scheduled == arrivals).all()


def test_a_server_that_keeps_up_is_issued_to_in_time():
    world = World()
    got = world.run(server(min_queries=30, target_qps=1.0), Serial(world.work(0.001)))
    assert got.lag.max() == 0
    assert world.slept >= 25


def test_offline_asks_for_every_sample_in_one_query():
    world, seen = World(), []
    scenario = Scenario("offline", samples_per_query=7, min_duration_s=0.0)
    got = world.run(scenario, Serial(lambda part: seen.append(part) or world.sleep(1e-3), batch=3), samples=5)
    assert seen == [(0, 1, 2), (3, 4, 0), (1,)]
    assert got.sample_latencies.tolist() == [MS] * 3 + [2 * MS] * 3 + [3 * MS]  # each by the time that it was done
    assert got.completed.tolist() == [3 * MS]


def test_the_same_seed_draws_the_same_samples():
    def drawn(seed):
        world, seen = World(), []
        system = Serial(lambda samples: seen.append(samples) or world.sleep(1e-3))
        world.run(Scenario("single-stream", min_queries=40, min_duration_s=0.0, seed=seed), system, samples=1000)
        return seen

    assert drawn(1) == drawn(1) != drawn(2)


def test_giving_up_ends_a_server_run_once_its_verdict_is_lost():
    world = World()
    patient = world.run(server(min_queries=1000), Serial(world.work(20)))
    world = World()
    hasty = world.run(server(min_queries=1000), Serial(world.work(20)), give_up=True)
    assert (len(patient.completed), patient.ending) == (1000, "natural")
    assert hasty.ending == "hopeless"
    assert len(hasty.completed) < 30
    assert (hasty.latencies == patient.latencies[: len(hasty.completed)]).all()


def test_a_queue_completes_every_query_once_and_in_order():
    seen = []
    with Queued(seen.append) as system:
        got = run(server(min_queries=300, target_qps=1e5, latency_bound_s=10.0), system, 10)
    assert len(seen) == len(got.completed) == 300
    assert (np.diff(got.completed) >= 0).all()


def test_a_cancelled_queue_forgets_what_was_not_begun():
    begun, go = threading.Event(), threading.Event()
    seen = []

    def work(samples):
        begun.set()
        assert go.wait(10)
        seen.append(samples)

    report = type("Report", (), {"done": lambda *a: None, "failed": lambda *a: None})()
    with Queued(work) as system:
        for i in range(5):
            system.issue(type("Q", (), {"id": i, "samples": (i,)})(), report)
        assert begun.wait(10)
        system.cancel()
        go.set()
    assert seen == [(0,)]


class Told:
    """A system that does with each query and report what it is told."""

    def __init__(self, action):
        self._action = action

    def issue(self, query, report):
        self._action(query, report)

    def cancel(self):
        pass


STREAM = Scenario("single-stream", min_queries=3, min_duration_s=0.0)


def test_a_query_that_is_never_completed_is_a_named_time_out():
    with pytest.raises(NotRunnable, match=r"the model did not complete query 0 \(1 are open\).*for 20 ms") as caught:
        run(STREAM, Told(lambda query, report: None), 4, name="the model", timeout_s=0.02)
    assert caught.value.outcome == "timed-out"


def test_a_query_that_is_completed_twice_is_told():
    def twice(query, report):
        report.done(query.id)
        report.done(query.id)

    with pytest.raises(CheckFailed, match="completed query 0 twice"):
        run(STREAM, Told(twice), 4)


def test_a_query_that_was_never_issued_is_told():
    with pytest.raises(CheckFailed, match="completed query 99, which it was never given; the last one was 0"):
        run(STREAM, Told(lambda query, report: report.done(99)), 4)


@pytest.mark.parametrize("count", [0, -1, 2])
def test_more_or_fewer_samples_than_are_left_are_told(count):
    with pytest.raises(CheckFailed, match=f"reported {count} samples of query 0 done; 1 were left"):
        run(STREAM, Told(lambda query, report: report.done(query.id, count)), 4)


def test_what_a_system_raises_is_told_with_its_query():
    def work(samples):
        raise ArithmeticError("out of luck")

    with pytest.raises(CheckFailed, match="system failed on query 0 with ArithmeticError: out of luck"):
        run(STREAM, Serial(work), 4)
    with Queued(work) as system, pytest.raises(CheckFailed, match="ArithmeticError"):
        run(server(min_queries=50), system, 4)


def test_a_clock_that_goes_backwards_is_told():
    world = World()

    def back(samples):
        world.now -= 3

    with pytest.raises(CheckFailed, match="clock went backwards by 3 ns") as caught:
        world.run(Scenario("single-stream", min_queries=1, min_duration_s=0.0), Serial(back))
    assert caught.value.outcome == "clock-backwards"


def test_no_samples_and_training_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        run(STREAM, Serial(len), 0)
    with pytest.raises(ValueError, match="training"):
        run(Scenario("training-steps"), Serial(len), 4)


def test_a_queue_needs_a_thread():
    with pytest.raises(ValueError, match="threads: wanted at least 1, got 0"):
        Queued(len, threads=0)
