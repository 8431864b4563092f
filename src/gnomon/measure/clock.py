"""Clocks of a measurement, and what they can tell apart. They are arguments, so that a test can bring its own."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from gnomon.core.errors import CheckFailed

_TICKS = 9
_LONGEST_TICK_READS = 10_000_000  # a clock that stands still for so many readings is broken


def _page_faults() -> int:
    who = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # Darwin counts per process only
    usage = resource.getrusage(who)
    return usage.ru_minflt + usage.ru_majflt


@dataclass(frozen=True, slots=True)
class Clock:
    """wall_ns: monotonic. cpu_ns: CPU time of the process, all its threads. page_faults: of the calling thread."""

    wall_ns: Callable[[], int] = time.perf_counter_ns
    cpu_ns: Callable[[], int] = time.process_time_ns
    page_faults: Callable[[], int] = _page_faults


def elapsed(start_ns: int, end_ns: int, name: str) -> int:
    """Nanoseconds from start to end. Raises CheckFailed when the clock went backwards."""
    if end_ns < start_ns:
        raise CheckFailed(
            f"the {name} clock went backwards by {start_ns - end_ns} ns during a call; nothing timed with it can be "
            "trusted. Is the machine being migrated or its time adjusted? Measure again",
            outcome="clock-backwards",
        )
    return end_ns - start_ns


def resolution_ns(read: Callable[[], int], name: str) -> int:
    """The step that `read` can tell apart: a coarse clock's tick, or the cost of a reading where that is larger.

    Raises CheckFailed when the clock goes backwards or stands still.
    """
    steps = []
    for _ in range(_TICKS):
        start = read()
        for _ in range(_LONGEST_TICK_READS):
            step = elapsed(start, read(), name)
            if step > 0:
                break
        else:
            raise CheckFailed(
                f"the {name} clock stood still for {_LONGEST_TICK_READS} readings; it cannot time a call",
                outcome="zero-length",
            )
        steps.append(step)
    return round(statistics.median(steps))
