import pytest

from gnomon.measure.probes.timing import CALM, CpuStopwatch, CudaStopwatch, Rounds

from ..fakes import HandClock


class Machine:
    """Kernels of given times on a machine whose slowness is a list, one entry per visit, the last one staying."""

    def __init__(self, seconds, slowness=(1.0,)):
        self.clock, self.seconds, self.slowness = HandClock(tick_ns=1), seconds, list(slowness)
        self.visits = []

    def _run(self, seconds):
        slow = self.slowness[min(max(len(self.visits) - 1, 0), len(self.slowness) - 1)]
        self.clock.advance(round(seconds * slow * 1e9))

    def maker(self, name):
        def make():
            self.visits.append(name)
            return lambda: self._run(self.seconds[name])

        return make

    def rounds(self):
        return Rounds(
            {name: self.maker(name) for name in self.seconds},
            lambda: self._run(3e-4),
            CpuStopwatch(self.clock.clock),
            now=lambda: self.clock.wall * 1e-9,
        )


def test_an_undisturbed_machine_is_visited_three_times_per_kernel_and_no_more():
    machine = Machine({"a": 1e-3, "b": 5e-3})
    a, b = machine.rounds().run(budget_s=100.0)
    assert sorted(machine.visits) == ["a"] * 3 + ["b"] * 3
    assert (a.name, b.name) == ("a", "b")
    assert (a.seconds, b.seconds) == pytest.approx((1e-3, 5e-3), rel=1e-3)
    assert a.disturbance == pytest.approx(1, abs=1e-3)


def test_what_was_seen_disturbed_is_seen_again_and_its_slow_visits_do_not_count():
    machine = Machine({"a": 1e-3, "b": 1e-3}, slowness=[1.0, 1.6, 1.6, 1.6, 1.0])
    for reading in machine.rounds().run(budget_s=100.0):
        assert reading.seconds == pytest.approx(1e-3, rel=1e-3)
        assert reading.visits == 3
        assert reading.spread < 1e-3
    assert len(machine.visits) == 9


def test_a_kernel_that_was_never_seen_in_the_usual_state_says_how_slow_the_machine_was():
    machine = Machine({"a": 1e-3, "b": 2e-3}, slowness=[1.0, 1.5])
    a, b = machine.rounds().run(budget_s=0.06)  # time for one visit each
    assert a.disturbance == pytest.approx(1.0, abs=1e-3)
    assert b.disturbance == pytest.approx(1.5, rel=1e-3)
    assert b.disturbance > CALM
    assert b.seconds == pytest.approx(3e-3, rel=1e-3)
    assert b.reference_s == pytest.approx(4.5e-4, rel=1e-3)


def test_one_lucky_moment_is_not_the_machines_usual_state():
    machine = Machine({name: 1e-3 for name in "abcdef"}, slowness=[1.0] + [1.5] * 100)
    for reading in machine.rounds().run(budget_s=100.0):
        assert reading.seconds == pytest.approx(1.5e-3, rel=1e-3)
        assert reading.disturbance == 1


def test_the_budget_ends_the_rounds_and_what_was_not_reached_has_no_reading():
    machine = Machine({name: 0.1 for name in "abcdef"})
    readings = machine.rounds().run(budget_s=1.0)
    assert 1 <= len(readings) < 6
    assert [reading.name for reading in readings] == list("abcdef")[: len(readings)]


def test_every_kernel_is_seen_once_before_any_is_seen_again():
    machine = Machine({name: 1e-3 for name in "abcdef"})
    machine.rounds().run(budget_s=100.0)
    assert machine.visits[:6] == list("abcdef")


def test_a_call_below_the_clock_s_resolution_is_repeated_inside_the_timer():
    machine = Machine({"a": 1e-7})
    machine.clock.tick_ns = 1000
    (reading,) = machine.rounds().run(budget_s=100.0)
    assert reading.seconds == pytest.approx(1e-7, rel=0.1)  # a tick is 2 % of what is timed, at either end


def test_progress_is_told_at_most_ten_times():
    told = []
    Machine({name: 0.01 for name in "abc"}).rounds().run(2.0, told.append)
    assert 1 <= len(told) <= 10
    assert "of 3 kernels seen" in told[0]


class FakeCuda:
    """A stream whose clock advances when the device is waited for; launching takes no time."""

    def __init__(self):
        self.now_ms, self.queued_ms, self.waits = 0.0, 0.0, 0

    def synchronize(self):
        self.now_ms, self.queued_ms, self.waits = self.now_ms + self.queued_ms, 0.0, self.waits + 1

    def Event(self, enable_timing):
        assert enable_timing
        cuda = self

        class Recorded:
            def record(self):
                self.at = cuda.now_ms + cuda.queued_ms

            def elapsed_time(self, other):
                return other.at - self.at

        return Recorded()

    def kernel(self):
        self.queued_ms += 2.0


def test_a_gpu_is_timed_by_events_of_its_stream_between_two_waits():
    cuda = FakeCuda()
    cuda.kernel()  # still running when the timer starts
    assert CudaStopwatch(cuda)(cuda.kernel, 5) == pytest.approx(2e-3)
    assert cuda.waits == 2
