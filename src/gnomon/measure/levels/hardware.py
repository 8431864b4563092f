"""The hardware level: counters of the processor and the kernel around untraced calls, one group of them at a time.

Nothing is traced inside a call, so its time is that of the model level but for switching the counters on and off. There
are no spans: a count says how much of something a call did, not when.
"""

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from gnomon.measure.clock import Clock
from gnomon.measure.counters.perf import GROUPS, Event, Group, LinuxSystem, Reading, System, reason
from gnomon.measure.levels.trace import Counts, Summary
from gnomon.workload.program import Program


def why_not(program: Program) -> str | None:
    """None: each counter says for itself whether it is available."""
    return None


def tracer(program: Program, clock: Clock, synchronize: Callable[[], None] | None) -> "HardwareTracer":
    """The tracer of this level, on this machine's own counters."""
    try:
        return HardwareTracer(program.step, LinuxSystem())
    except OSError as error:
        return HardwareTracer(program.step, None, {e.name: reason(error, e) for group in GROUPS for e in group})


def summary(tracer: "HardwareTracer", kept: Sequence[int], median: int, clock: Clock, name: str) -> Summary:
    """The counts of all calls; which calls took a typical time is of no matter to a count."""
    tracer.close()
    return Summary((), (), (), 0, None, counters=tracer.counts())


class HardwareTracer:
    """Counts one group per call, the groups in turn, so that `rounds` times as many calls are wanted."""

    def __init__(
        self,
        step: Callable[[], object],
        system: System | None,
        missing: dict[str, str] | None = None,
        groups: Sequence[Sequence[Event]] = GROUPS,
    ) -> None:
        self.plain = step
        self.scope: Callable[[], AbstractContextManager[None]] = nullcontext
        self._names = [event.name for group in groups for event in group]
        self._missing = dict(missing or {})
        opened = [Group(group, system) for group in groups] if system is not None else []
        for group in opened:
            self._missing |= group.missing
        self._groups = [group for group in opened if group.events]
        self._opened = opened
        self._readings: list[Reading] = []
        self.rounds = max(len(self._groups), 1)
        self._calls = 0

    def step(self) -> None:
        """One step with the next group of counters on, and nothing but the step inside."""
        if not self._groups:
            self.plain()
            return
        group = self._groups[self._calls % len(self._groups)]
        self._calls += 1
        with group.counting(self._readings.append):
            self.plain()

    def counts(self) -> tuple[Counts, ...]:
        """Every counter of the level in order: its count in each call that counted it, or why there is none."""
        found = []
        for name in self._names:
            values = [reading.counts[name] for reading in self._readings if name in reading.counts]
            running = [reading.running for reading in self._readings if name in reading.counts]
            late = next((r.missing[name] for r in self._readings if name in r.missing), None)
            why = self._missing.get(name) or late or "no call was counted"
            share = statistics.fmean(running) if running else None
            found.append(Counts(name, tuple(values), share, None if values else why))
        return tuple(found)

    def close(self) -> None:
        """Give the counters back."""
        for group in self._opened:
            group.close()
