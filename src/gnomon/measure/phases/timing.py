"""Time passes made of steps: each step inside the pass, and the pass as a whole beside it, all passes in turns.

A step is timed where it runs, with what the step before left in the caches. The clock readings between steps are the
only difference from the whole, so the steps' times sum to the whole but for that; `PassTimes.cover` says how well.
"""

import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gnomon.measure.clock import Clock, elapsed
from gnomon.measure.timing import quiet_collector

_LEAST_ROUNDS = 3
_SHORT_NS = 2_000_000  # a shorter pass is repeated within a round until it takes so long
_MOST_REPEATS = 20


class Pass(NamedTuple):
    """start: makes the first state. steps: each takes the state before, returns the next. whole: all of it at once."""

    name: str
    start: Callable[[], Any]
    steps: Sequence[Callable[[Any], Any]]
    whole: Callable[[], Any]


class PassTimes(NamedTuple):
    """CPU seconds: of every step [rounds][steps] and of the whole [rounds]."""

    steps: tuple[tuple[float, ...], ...]
    whole: tuple[float, ...]

    def typical(self) -> tuple[float, ...]:
        """The median of each step over the rounds."""
        return tuple(statistics.median(times) for times in zip(*self.steps, strict=True))

    @property
    def cover(self) -> float:
        """Median over rounds of the steps' sum over the whole beside it: 1 when nothing is lost or added."""
        return statistics.median(sum(steps) / whole for steps, whole in zip(self.steps, self.whole, strict=True))


def time_passes(
    passes: Sequence[Pass], clock: Clock, rounds: int, budget_s: float, seed: int = 0
) -> tuple[PassTimes, ...]:
    """Time every pass once per round, in an order drawn anew for each; a call of each comes first and does not count.

    budget_s: wall time after which no further round starts, though three are always made. Raises CheckFailed when a
    clock goes backwards; what a step raises comes through.
    """
    stepped: list[list[tuple[float, ...]]] = [[] for _ in passes]
    wholes: list[list[float]] = [[] for _ in passes]
    repeats = [_warm_up(one, clock) for one in passes]
    order, rng = list(range(len(passes))), random.Random(seed)
    with quiet_collector() as collect:
        begin = clock.wall_ns()
        for round_ in range(rounds):
            if round_ >= _LEAST_ROUNDS and elapsed(begin, clock.wall_ns(), "wall") * 1e-9 >= budget_s:
                break
            rng.shuffle(order)
            for i in order:
                collect()
                kinds: list[Callable[[], None]] = [
                    lambda i=i: stepped[i].append(_steps_s(passes[i], clock, repeats[i])),  # type: ignore[misc]
                    lambda i=i: wholes[i].append(_whole_s(passes[i], clock, repeats[i])),  # type: ignore[misc]
                ]
                rng.shuffle(kinds)  # which of the two finds the caches warm is left to chance
                for kind in kinds:
                    kind()
    return tuple(PassTimes(tuple(s), tuple(w)) for s, w in zip(stepped, wholes, strict=True))


def _warm_up(one: Pass, clock: Clock) -> int:
    """A first call, and how often a call is repeated within a round."""
    begin = clock.cpu_ns()
    one.whole()
    return max(1, min(_MOST_REPEATS, _SHORT_NS // max(elapsed(begin, clock.cpu_ns(), "CPU"), 1)))


def _steps_s(one: Pass, clock: Clock, repeat: int) -> tuple[float, ...]:
    totals = [0] * len(one.steps)
    for _ in range(repeat):
        state = one.start()
        before = clock.cpu_ns()
        for i, step in enumerate(one.steps):
            state = step(state)
            now = clock.cpu_ns()
            totals[i] += elapsed(before, now, "CPU")
            before = now
    return tuple(total * 1e-9 / repeat for total in totals)


def _whole_s(one: Pass, clock: Clock, repeat: int) -> float:
    begin = clock.cpu_ns()
    for _ in range(repeat):
        one.whole()
    return elapsed(begin, clock.cpu_ns(), "CPU") * 1e-9 / repeat
