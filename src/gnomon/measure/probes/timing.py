"""Time many kernels within a budget on a machine that others use too: each visit says how disturbed it was.

The speed of a shared core changes by half for seconds at a time, with what runs beside it. So a reference kernel is
timed before and after each visit. The machine's usual state is what the reference takes at the calm end of its visits
(the lower quartile: a single lucky moment is nobody's machine); visits in another state are repeated as long as there
is time, and a kernel's time is taken from its visits in the usual one.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gnomon.measure.clock import Clock, resolution_ns
from gnomon.measure.timing import Step, quiet_collector, time_call

CALM = 1.15  # a reference this much off the usual is a machine in another state: jitter alone stays below
_USUAL = 0.25  # quantile of the reference's times
_VISITS = 3
_CALLS = 3
_TIMES_RESOLUTION = 50
_VISIT_S = 0.03


class Stopwatch(Protocol):
    """Seconds of one call, the mean of `repeat` of them inside one timer."""

    def __call__(self, step: Step, repeat: int) -> float: ...

    def step_s(self) -> float:
        """The shortest time that it can tell apart."""
        ...


class CpuStopwatch:
    """CPU time of this process, all threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()

    def __call__(self, step: Step, repeat: int) -> float:
        return time_call(step, self._clock, repeat).cpu_ns * 1e-9

    def step_s(self) -> float:
        return resolution_ns(self._clock.cpu_ns, "CPU") * 1e-9


class CudaStopwatch:
    """Time between two events of the device's stream. cuda: `torch.cuda`, or what stands in for it."""

    _RESOLUTION_S = 0.5e-6  # CUDA's documentation of cudaEventElapsedTime

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda

    def __call__(self, step: Step, repeat: int) -> float:
        start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        self._cuda.synchronize()
        start.record()
        for _ in range(repeat):
            step()
        end.record()
        self._cuda.synchronize()
        return float(start.elapsed_time(end)) * 1e-3 / repeat

    def step_s(self) -> float:
        return self._RESOLUTION_S


@dataclass(frozen=True, slots=True)
class Reading:
    """A kernel's time. disturbance: how much slower than usual the reference was at the visits that count.

    reference_s: the reference's time then. spread: largest over smallest time among these visits, less 1. visits: how
    many count.
    """

    name: str
    seconds: float
    spread: float
    disturbance: float
    reference_s: float
    visits: int


@dataclass(frozen=True, slots=True)
class _Visit:
    seconds: float
    reference_s: float


@dataclass(slots=True)
class Rounds:
    """Visits to kernels until all have been seen calm three times or the budget is over.

    steps: name -> what makes a fresh call of that kernel. reference: a call of about a third of a millisecond. now:
    seconds, for the budget alone.
    """

    steps: Mapping[str, Callable[[], Step]]
    reference: Step
    stopwatch: Stopwatch
    now: Callable[[], float] = time.monotonic
    seed: int = 0
    visits: dict[str, list[_Visit]] = field(default_factory=dict)

    def run(self, budget_s: float, progress: Callable[[str], None] = lambda text: None) -> list[Reading]:
        """Readings of every kernel that was reached, in the order of `steps`."""
        start, told = self.now(), -1
        shortest_s = _TIMES_RESOLUTION * self.stopwatch.step_s()
        with quiet_collector() as collect:
            for name in self._order():
                passed = (self.now() - start) / budget_s
                if passed >= 1:
                    break
                collect()
                self.visits.setdefault(name, []).append(self._visit(name, shortest_s))
                if int(10 * passed) > told:
                    told = int(10 * passed)
                    progress(f"{len(self.visits)} of {len(self.steps)} kernels seen, {10 * told} % of the time used")
        usual = self._usual_s() if self.visits else 1.0
        return [_reading(name, self.visits[name], usual) for name in self.steps if name in self.visits]

    def _usual_s(self) -> float:
        """The reference's time in the machine's usual state."""
        times = sorted(visit.reference_s for visits in self.visits.values() for visit in visits)
        return times[int(_USUAL * (len(times) - 1))]

    def _order(self) -> Iterator[str]:
        """Every kernel once, as they were given; then, again and again, those that lack most."""
        yield from self.steps
        rng = random.Random(self.seed)
        while True:
            usual = self._usual_s()
            calm = {name: sum(is_calm(v.reference_s, usual) for v in visits) for name, visits in self.visits.items()}
            lacking = [name for name in self.visits if calm[name] < _VISITS]
            if not lacking:
                return
            least = min(calm[name] for name in lacking)
            again = [name for name in lacking if calm[name] == least]
            rng.shuffle(again)
            yield from again

    def _visit(self, name: str, shortest_s: float) -> _Visit:
        step = self.steps[name]()
        step()  # allocates, compiles, fills caches
        before = self._reference()
        repeat, seconds = 1, self.stopwatch(step, 1)
        while seconds * repeat < shortest_s:  # a coarse clock makes a short call look long: ask again
            repeat = max(2 * repeat, math.ceil(shortest_s / max(seconds, 1e-9)))
            seconds = self.stopwatch(step, repeat)
        times = [self.stopwatch(step, repeat) for _ in range(_CALLS)]
        while sum(times) * repeat < _VISIT_S:
            times.append(self.stopwatch(step, repeat))
        return _Visit(statistics.median(times), max(before, self._reference()))

    def _reference(self) -> float:
        return statistics.median(self.stopwatch(self.reference, 1) for _ in range(_CALLS))


def is_calm(reference_s: float, usual_s: float) -> bool:
    """Whether the machine was in its usual state."""
    return usual_s / CALM <= reference_s <= CALM * usual_s


def _reading(name: str, visits: Sequence[_Visit], usual_s: float) -> Reading:
    """The median of the visits in the usual state; without one, the visit nearest to it."""
    calm = [visit for visit in visits if is_calm(visit.reference_s, usual_s)]
    counted = calm or [min(visits, key=lambda visit: abs(math.log(visit.reference_s / usual_s)))]
    times = [visit.seconds for visit in counted]
    reference_s = statistics.median(visit.reference_s for visit in counted)
    disturbance = 1.0 if calm else reference_s / usual_s
    spread = max(times) / min(times) - 1
    return Reading(name, statistics.median(times), spread, disturbance, reference_s, len(counted))
