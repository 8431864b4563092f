import errno

from gnomon.measure.clock import Clock
from gnomon.measure.counters.perf import Event
from gnomon.measure.levels import hardware
from gnomon.measure.levels.hardware import HardwareTracer
from gnomon.workload.program import build
from tests.measure import tasks
from tests.measure.counters.test_perf import Kernel

GROUPS = ((Event("a", 0, 0), Event("b", 0, 1)), (Event("c", 1, 3),))


class Everywhere(dict):
    """The same count on whatever threads the test has."""

    def get(self, key, default=None):
        return {"a": 3, "b": 5, "c": 7}[key[1]]


def test_groups_take_turns_so_that_each_call_counts_one():
    done = []
    tracer = HardwareTracer(lambda: done.append(1), Kernel(Everywhere()), groups=GROUPS)
    assert tracer.rounds == 2
    for _ in range(6):
        with tracer.scope():
            tracer.step()
    a, b, c = tracer.counts()
    threads = a.values[0] / 3
    assert [len(one.values) for one in (a, b, c)] == [3, 3, 3]
    assert (set(b.values), set(c.values)) == ({5 * threads}, {7 * threads})
    assert len(done) == 6


def test_a_machine_without_counters_still_runs_and_says_why_for_each():
    done = []
    refused = dict.fromkeys("abc", errno.ENOSYS)
    tracer = HardwareTracer(lambda: done.append(1), Kernel(refused=refused), groups=GROUPS)
    tracer.step()
    assert done == [1]
    assert tracer.rounds == 1
    assert all(one.values == () and "no perf_event_open here" in one.unavailable for one in tracer.counts())


def test_on_this_machine_every_counter_has_counts_or_a_reason():
    program = build(tasks.linear())
    assert hardware.why_not(program) is None
    tracer = hardware.tracer(program, Clock(), None)
    for _ in range(2 * tracer.rounds):
        with tracer.scope():
            tracer.step()
    found = hardware.summary(tracer, [0], 0, Clock(), "tiny").counters
    assert {"cycles", "instructions", "cache-misses", "branch-misses", "page-faults"} <= {one.name for one in found}
    for one in found:
        assert bool(one.values) != bool(one.unavailable)
        assert len(one.values) in (0, 2)
