"""Timing of calls: one call, warm-up to stability, and several candidates interleaved so that drift hits all alike."""

import gc
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from gnomon.core.errors import CheckFailed
from gnomon.measure.clock import Clock, elapsed, resolution_ns

Step = Callable[[], Any]

_TIMES_RESOLUTION = 50  # a clock's step is then at most 2 % of what is timed
_WINDOW = 4
_STABLE = 0.05
_LEAST_WARMUP_S = 0.2  # clock frequency and lazy initialisation settle by time, not by calls
_LEAST_ROUNDS = 3


class Sample(NamedTuple):
    """One call: nanoseconds of wall and process CPU time, page faults of the thread."""

    wall_ns: float
    cpu_ns: float
    page_faults: int


class Candidate(NamedTuple):
    """A call to time. scope is entered around each timed call, outside the timer (a tracer installs its hooks there).

    repeat: how often the call runs inside one timer, for calls that the clock cannot resolve.
    """

    name: str
    step: Step
    repeat: int = 1
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext


class CandidateFailed(Exception):
    """One of several interleaved candidates raised `error`."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name, self.error = name, error
        super().__init__(f"{name}: {error}")


class Warmup(NamedTuple):
    calls: int
    is_stable: bool
    repeat: int


def time_call(step: Step, clock: Clock, repeat: int = 1, synchronize: Callable[[], None] | None = None) -> Sample:
    """Time `repeat` calls and divide. The device is synchronized before the start and before the end of the timer.

    Raises CheckFailed when a clock goes backwards.
    """
    if synchronize is not None:
        synchronize()
    faults = clock.page_faults()
    cpu = clock.cpu_ns()
    wall = clock.wall_ns()  # innermost: reading it is cheapest
    if repeat == 1:
        step()
    else:
        for _ in range(repeat):
            step()
    if synchronize is not None:
        synchronize()
    wall_ns = elapsed(wall, clock.wall_ns(), "wall")
    cpu_ns = elapsed(cpu, clock.cpu_ns(), "CPU")
    return Sample(wall_ns / repeat, cpu_ns / repeat, round((clock.page_faults() - faults) / repeat))


def not_empty(sample: Sample, repeat: int) -> Sample:
    """The sample as it is. Raises CheckFailed when the clock saw no time pass: ratios and rates would be infinite."""
    if sample.wall_ns <= 0:
        raise CheckFailed(
            f"the wall clock saw no time pass during {repeat} call(s); it is too coarse to time this task. Raise "
            "spec.batch, so that a call does more",
            outcome="zero-length",
        )
    return sample


@contextmanager
def quiet_collector() -> Iterator[Callable[[], object]]:
    """No garbage collection inside timers. Yields the collection to call between them; it looks at new objects only."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()  # what exists now is not looked at again: a collection between calls then takes microseconds
    gc.disable()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def warm_up(step: Step, clock: Clock, limit_s: float, synchronize: Callable[[], None] | None = None) -> Warmup:
    """Call until calls take the same time: the medians of the last 4 calls and of the 4 before differ by at most 5 %.

    CPU time decides on a CPU (a busy neighbour is no instability of the task), wall time where a device is
    synchronized. At least 8 calls and 0.2 s; at most `limit_s`, when the result says that it is not stable. `repeat` is
    how often a call must run inside one timer to last 50 steps of the coarser clock.
    """
    step_ns = max(resolution_ns(clock.wall_ns, "wall"), resolution_ns(clock.cpu_ns, "CPU"))
    times: list[float] = []
    repeat, calls = 1, 0
    with quiet_collector() as collect:
        start = clock.wall_ns()
        while True:
            sample = time_call(step, clock, repeat, synchronize)
            collect()
            calls += repeat
            needed = math.ceil(_TIMES_RESOLUTION * step_ns / max(sample.wall_ns, 1.0))
            if needed > 2 * repeat:  # the first, cold calls make a short call look long
                repeat, times = needed, []
                continue
            times.append(sample.wall_ns if synchronize is not None else sample.cpu_ns)
            passed_s = elapsed(start, clock.wall_ns(), "wall") * 1e-9
            before, last = times[-2 * _WINDOW : -_WINDOW], times[-_WINDOW:]
            if len(before) == _WINDOW and passed_s >= _LEAST_WARMUP_S:
                middle = statistics.median(before)
                if abs(statistics.median(last) - middle) <= _STABLE * middle:
                    return Warmup(calls, True, repeat)
            if passed_s >= limit_s:
                return Warmup(calls, False, repeat)


def time_interleaved(
    candidates: Sequence[Candidate],
    clock: Clock,
    calls: int,
    budget_s: float,
    seed: int = 0,
    synchronize: Callable[[], None] | None = None,
) -> list[list[Sample]]:
    """Time all candidates round by round, each once per round, in an order drawn anew for every round.

    calls: rounds wanted. budget_s: time after which no further round starts, though three are always made.
    Returns one list of samples per candidate, paired by round. Raises CandidateFailed when a call raises.
    """
    samples: list[list[Sample]] = [[] for _ in candidates]
    order, rng = list(range(len(candidates))), random.Random(seed)
    with quiet_collector() as collect:
        start = clock.wall_ns()
        for round_ in range(calls):
            if round_ >= _LEAST_ROUNDS and elapsed(start, clock.wall_ns(), "wall") * 1e-9 >= budget_s:
                break
            rng.shuffle(order)
            for i in order:
                candidate = candidates[i]
                collect()
                try:
                    with candidate.scope():
                        sample = time_call(candidate.step, clock, candidate.repeat, synchronize)
                    samples[i].append(not_empty(sample, candidate.repeat))
                except Exception as error:
                    raise CandidateFailed(candidate.name, error) from error
    return samples
