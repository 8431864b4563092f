"""Counters of the processor and the kernel around a call, by the Linux system call perf_event_open (man 2).

A counter that this machine does not offer is an answer with its reason, never a zero. A processor has few counter
registers, so events are read in small groups, one group at a time; a group that still had to share its registers is
scaled up by the share of the time that it was counting, and that share is told.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

_SYSCALL = {"x86_64": 298, "aarch64": 241}  # asm/unistd.h of each
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
_HARDWARE, _SOFTWARE = 0, 1  # linux/perf_event.h: perf_type_id
_DISABLED, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 0, 1 << 5, 1 << 6
_TIMES_AND_GROUP = 1 | 2 | 8  # PERF_FORMAT_TOTAL_TIME_ENABLED, _RUNNING, _GROUP
_ENABLE, _DISABLE, _WHOLE_GROUP = 0x2400, 0x2401, 1
_CLOEXEC = 8


class Event(NamedTuple):
    """An event of linux/perf_event.h. in_kernel: it happens inside the kernel; counting user mode alone sees none."""

    name: str
    type: int
    config: int
    in_kernel: bool = False


# hardware events count user mode alone: what the kernel does for others would differ from run to run
GROUPS: tuple[tuple[Event, ...], ...] = (
    (Event("cycles", _HARDWARE, 0), Event("instructions", _HARDWARE, 1)),
    (Event("cache-references", _HARDWARE, 2), Event("cache-misses", _HARDWARE, 3)),
    (Event("branches", _HARDWARE, 4), Event("branch-misses", _HARDWARE, 5)),
    (
        Event("task-clock", _SOFTWARE, 1),
        Event("page-faults", _SOFTWARE, 2),
        Event("context-switches", _SOFTWARE, 3, in_kernel=True),
        Event("cpu-migrations", _SOFTWARE, 4, in_kernel=True),
    ),
)


class System(Protocol):
    """The system calls that counting needs; tests bring their own."""

    def open(self, event: Event, thread: int, group: int, flags: int) -> int:
        """A descriptor. Raises OSError with the kernel's errno."""

    def control(self, descriptor: int, request: int) -> None: ...

    def read(self, descriptor: int, size: int) -> bytes: ...

    def close(self, descriptor: int) -> None: ...


class _Attributes(ctypes.Structure):
    """struct perf_event_attr up to its version 5 (112 bytes), which every kernel since 4.1 reads."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("unused", ctypes.c_uint64 * 8),
    )


class LinuxSystem:
    """The real kernel. Raises OSError (ENOSYS) where perf_event_open has no number that is known here."""

    def __init__(self) -> None:
        number = _SYSCALL.get(platform.machine())
        if sys.platform != "linux" or number is None:
            raise OSError(errno.ENOSYS, f"perf_event_open is not known on {sys.platform}, {platform.machine()}")
        self._number = number
        self._libc = ctypes.CDLL(None, use_errno=True)

    def open(self, event: Event, thread: int, group: int, flags: int) -> int:
        """Count `event` in one thread on whichever CPU it runs; group: the leader's descriptor, -1 for a leader."""
        size = ctypes.sizeof(_Attributes)
        attributes = _Attributes(event.type, size, event.config, read_format=_TIMES_AND_GROUP, flags=flags)
        call, any_cpu = self._libc.syscall, -1
        descriptor: int = call(self._number, ctypes.byref(attributes), thread, any_cpu, group, _CLOEXEC)
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return descriptor

    def control(self, descriptor: int, request: int) -> None:
        """Switch a whole group on or off."""
        import fcntl

        fcntl.ioctl(descriptor, request, _WHOLE_GROUP)

    def read(self, descriptor: int, size: int) -> bytes:
        return os.read(descriptor, size)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)


class Reading(NamedTuple):
    """Counts of one call by event, scaled to the whole call. running: share of the time that they were counting.

    missing: events that this call has no count for, with the reason.
    """

    counts: Mapping[str, float]
    running: float
    missing: Mapping[str, str]


class Group:
    """One group of events on all threads that the process has now; threads that start later are not counted."""

    def __init__(self, events: Sequence[Event], system: System, threads: Sequence[int] | None = None) -> None:
        self._system = system
        self._leaders: list[int] = []
        self._all: list[int] = []
        self.missing: dict[str, str] = {}
        self.events: list[Event] = []
        tids = list(threads) if threads is not None else sorted(int(tid) for tid in os.listdir("/proc/self/task"))
        self.threads = len(tids)
        try:
            for event in events:  # the first thread shows which there are
                self._try(event, tids[0])
            for tid in tids[1:]:
                leader = -1
                for event in self.events:
                    descriptor = self._open(event, tid, leader)
                    leader = descriptor if leader < 0 else leader
                if leader >= 0:
                    self._leaders.append(leader)
        except BaseException:
            self.close()
            raise

    def _try(self, event: Event, tid: int) -> None:
        try:
            descriptor = self._open(event, tid, self._leaders[0] if self._leaders else -1)
        except OSError as error:
            self.missing[event.name] = reason(error, event)
            return
        self.events.append(event)
        if not self._leaders:
            self._leaders.append(descriptor)

    def _open(self, event: Event, tid: int, leader: int) -> int:
        flags = _DISABLED if leader < 0 else 0  # members follow their leader
        if not event.in_kernel:
            flags |= _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR
        descriptor = self._system.open(event, tid, leader, flags)
        self._all.append(descriptor)
        return descriptor

    @contextmanager
    def counting(self, keep: Callable[[Reading], None]) -> Iterator[None]:
        """Counts while the body runs, on every thread, and hands the sums to `keep`."""
        before = [self._read(leader) for leader in self._leaders]
        for leader in self._leaders:
            self._system.control(leader, _ENABLE)
        try:
            yield
        finally:
            for leader in self._leaders:
                self._system.control(leader, _DISABLE)
        after = [self._read(leader) for leader in self._leaders]
        keep(self._reading(before, after))

    def _read(self, leader: int) -> tuple[int, ...]:
        """(enabled ns, running ns, one count per event)."""
        size = 8 * (3 + len(self.events))
        values: tuple[int, ...] = struct.unpack(f"={3 + len(self.events)}Q", self._system.read(leader, size))
        return values[1:]

    def _reading(self, before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> Reading:
        counts, running = [0.0] * len(self.events), 1.0
        for old, new in zip(before, after, strict=True):
            enabled, ran = new[0] - old[0], new[1] - old[1]
            if enabled and not ran:
                why = "the processor's counters were taken by others for the whole call"
                return Reading({}, 0.0, {**self.missing, **{event.name: why for event in self.events}})
            share = ran / enabled if enabled else 1.0
            running = min(running, share)
            for i, (a, b) in enumerate(zip(old[2:], new[2:], strict=True)):
                counts[i] += (b - a) / share
        return Reading({e.name: n for e, n in zip(self.events, counts, strict=True)}, running, self.missing)

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in self._all:
            self._system.close(descriptor)
        self._all.clear()
        self._leaders.clear()


def reason(error: OSError, event: Event) -> str:
    """Why the kernel refused an event, and what could be done, from its errno."""
    code = errno.errorcode.get(error.errno or 0, str(error.errno))
    match code:
        case "ENOENT" | "ENODEV" | "EOPNOTSUPP":
            text = "this machine offers no such counter; virtual machines usually hide those of the processor"
        case "EACCES" | "EPERM":
            text = (
                f"the kernel forbids it (perf_event_paranoid is {_paranoid()}); allow it with sysctl "
                f"kernel.perf_event_paranoid={1 if event.in_kernel else 2} or the capability CAP_PERFMON"
            )
        case "ENOSYS":
            text = "there is no perf_event_open here: another system, a kernel without it, or a container that hides it"
        case "EBUSY":
            text = "another program holds the counters for itself"
        case "EMFILE":
            text = "too many files are open; raise ulimit -n"
        case _:
            text = error.strerror or "the kernel gave no reason"
    return f"{text} ({code})"


def _paranoid() -> str:
    try:
        return _PARANOID.read_text().strip()
    except OSError:
        return "not readable"
