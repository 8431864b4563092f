import errno
import itertools
import mmap
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.measure.counters.perf import GROUPS, Event, Group, LinuxSystem, reason

A, B, C = Event("a", 0, 0), Event("b", 0, 1), Event("c", 1, 3, in_kernel=True)


class Kernel:
    """A kernel of our own. refused: event name -> errno. counts: per thread and event, added at each enabling."""

    def __init__(self, counts=None, refused=None, enabled_ns=100, running_ns=100):
        self.counts, self.refused = counts or {}, refused or {}
        self.enabled_ns, self.running_ns = enabled_ns, running_ns
        self.groups, self.opened, self.closed, self.flags = {}, [], [], {}
        self.numbers = itertools.count(10)

    def open(self, event, thread, group, flags):
        if event.name in self.refused:
            raise OSError(self.refused[event.name], "refused")
        descriptor = next(self.numbers)
        self.opened.append(descriptor)
        self.flags[event.name] = flags
        leader = descriptor if group < 0 else group
        self.groups.setdefault(leader, [0, 0]).append([thread, event.name, 0])
        return descriptor

    def control(self, descriptor, request):
        group = self.groups[descriptor]
        if request == 0x2401:  # off: what happened in between
            group[0] += self.enabled_ns
            group[1] += self.running_ns
            for member in group[2:]:
                member[2] += self.counts.get((member[0], member[1]), 0)

    def read(self, descriptor, size):
        enabled, running, *members = self.groups[descriptor]
        data = struct.pack(f"={3 + len(members)}Q", len(members), enabled, running, *(m[2] for m in members))
        assert size == len(data)
        return data

    def close(self, descriptor):
        self.closed.append(descriptor)


def _read(group, times=1):
    kept = []
    for _ in range(times):
        with group.counting(kept.append):
            pass
    return kept


@given(st.dictionaries(st.tuples(st.integers(1, 4), st.sampled_from("abc")), st.integers(0, 2**40)))
def test_counts_are_the_sums_over_threads_of_each_call_alone(counts):
    group = Group((A, B, C), Kernel(counts), threads=[1, 2, 3, 4])
    for reading in _read(group, times=2):
        assert reading.counts == {n: sum(counts.get((t, n), 0) for t in range(1, 5)) for n in "abc"}
        assert (reading.running, reading.missing) == (1.0, {})


@given(st.integers(1, 10**6), st.integers(1, 100))
def test_a_group_that_shared_its_registers_is_scaled_to_the_whole_call(count, percent):
    kernel = Kernel({(1, "a"): count}, enabled_ns=100, running_ns=percent)
    (reading,) = _read(Group((A,), kernel, threads=[1]))
    assert reading.counts["a"] == pytest.approx(count * 100 / percent)
    assert reading.running == pytest.approx(percent / 100)


def test_a_group_that_never_got_its_registers_has_no_count_rather_than_zero():
    (reading,) = _read(Group((A, B), Kernel(running_ns=0), threads=[1]))
    assert reading.counts == {}
    assert reading.missing["b"] == "the processor's counters were taken by others for the whole call"


def test_events_that_are_refused_are_told_one_by_one_and_the_others_count():
    kernel = Kernel({(1, "b"): 7, (2, "b"): 1}, refused={"a": errno.ENOENT, "c": errno.EACCES})
    group = Group((A, B, C), kernel, threads=[1, 2])
    (reading,) = _read(group)
    assert reading.counts == {"b": 8}
    assert reading.missing["a"] == (
        "this machine offers no such counter; virtual machines usually hide those of the processor (ENOENT)"
    )
    assert "the kernel forbids it (perf_event_paranoid is" in reading.missing["c"]
    assert "sysctl kernel.perf_event_paranoid=1" in reading.missing["c"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSYS, "a container that hides it"),
        (errno.EPERM, "kernel.perf_event_paranoid=2"),
        (errno.EBUSY, "another program holds the counters"),
        (errno.EMFILE, "raise ulimit -n"),
        (errno.EINVAL, "Invalid argument (EINVAL)"),
    ],
)
def test_every_errno_becomes_a_reason(number, text):
    assert text in reason(OSError(number, "Invalid argument"), A)


def test_events_of_the_kernel_are_counted_there_and_the_others_in_user_mode_alone():
    kernel = Kernel()
    Group((A, B, C), kernel, threads=[1])
    assert kernel.flags == {"a": 1 | 1 << 5 | 1 << 6, "b": 1 << 5 | 1 << 6, "c": 0}


def test_every_descriptor_is_given_back_also_when_opening_fails_half_way():
    kernel = Kernel()
    group = Group((A, B), kernel, threads=[1, 2])
    group.close()
    assert sorted(kernel.closed) == sorted(kernel.opened) == [10, 11, 12, 13]

    class Full(Kernel):
        def open(self, event, thread, group, flags):
            if thread == 2:
                raise OSError(errno.EMFILE, "full")
            return super().open(event, thread, group, flags)

    kernel = Full()
    with pytest.raises(OSError, match="full"):
        Group((A, B), kernel, threads=[1, 2])
    assert sorted(kernel.closed) == sorted(kernel.opened) == [10, 11]


@pytest.mark.skipif(sys.platform != "linux", reason="perf_event_open is a Linux system call")
def test_the_real_kernel_counts_or_says_why_not():
    try:
        system = LinuxSystem()
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return
        raise
    for events in GROUPS:
        group = Group(events, system)
        kept = []
        with mmap.mmap(-1, 4096 * 500) as pages:  # fresh from the kernel, as an allocator's memory need not be
            pages.madvise(mmap.MADV_NOHUGEPAGE)
            with group.counting(kept.append):
                for start in range(0, len(pages), 4096):
                    pages[start] = 1
        group.close()
        (reading,) = kept
        assert set(reading.counts) | set(reading.missing) == {event.name for event in events}
        assert all(reading.missing.values())
        if "task-clock" in reading.counts:
            assert 1e3 < reading.counts["task-clock"] < 10e9  # nanoseconds
        if "page-faults" in reading.counts:
            assert 490 < reading.counts["page-faults"] < 5000
        if "instructions" in reading.counts:
            assert reading.counts["instructions"] > 500
