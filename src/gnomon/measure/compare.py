"""Compare variants of a task, or several tasks: sessions in fresh processes, interleaved, until the answer is known.

No torch here. Variants of one task share their processes and take turns call by call; different tasks have processes of
their own, which take turns. Either way the unit is the session and sessions are paired.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gnomon.core.errors import CheckFailed, GnomonError, UsageError
from gnomon.core.looks import Looks, until
from gnomon.core.process import JSON
from gnomon.core.records import structure
from gnomon.core.stats import RatioTest, fast_half_mean, ratio_test
from gnomon.measure.child import Clock, Progress, Variant, checked, clocked, environment, now, run_session, silent
from gnomon.measure.drift import disturbances, ratio_drift
from gnomon.measure.record import Comparison, Session, VariantTimes
from gnomon.spec.task import Task

RunSession = Callable[..., JSON]  # as `child.run_session`

MARGIN = 0.02  # variants that differ by less count as equal
MOST_SESSIONS = 20
_CALLS = 300  # a process takes seconds to start; next to that many short calls cost nothing


def auto(most: int = MOST_SESSIONS) -> Looks:
    """Sessions until the answer is known, at most so many. Raises UsageError for fewer than 3."""
    if most < 3:
        raise UsageError(f"wanted at least 3 sessions to choose their number from; got at most {most}")
    return until(most)


def compare(
    task: Task,
    variants: Sequence[Variant],
    *,
    sessions: int | Looks | None = None,
    clock: Clock = "cpu",
    calls: int | None = None,
    margin: float | None = MARGIN,
    progress: Progress | None = None,
    run: RunSession = run_session,
) -> Comparison:
    """Time variants of a task against the first of them, interleaved call by call in the same fresh processes.

    sessions: fresh processes (default: the task's protocol), or `auto()`: more of them until every variant is faster,
    slower or no different. calls: rounds per session, each variant once per round in random order (default: the
    protocol's, at least 300), at most 1 s per variant. clock: the one that the ratios compare; CPU time is blind to
    other users of the machine, wall time is what a device or several threads need. margin: the difference up to which
    variants count as equal; None to tell only faster from slower. run: what times one session. A variant that fails is
    recorded with its reason and left out from then on.

    Raises UsageError for an impossible request, and what the baseline raises when that fails.
    """
    looks = _looks(task, sessions)
    names = [variant.name for variant in variants]
    if not variants or len(set(names)) < len(names):
        raise UsageError(f"wanted variants with different names, the baseline first; got {names}")
    rounds = _rounds(task, calls)
    say, started_at, found = progress or silent, now(), _Found(names)

    def session(i: int) -> None:
        result = None
        while result is None:
            running = [variant for variant in variants if variant.name not in found.failures]
            say(f"session {i + 1} of {_most(looks)}: {', '.join(variant.name for variant in running)}")
            last = _Last(say)
            turned = [*running[i % len(running) :], *running[: i % len(running)]]  # who is built first takes turns, too
            try:
                result = run(task, turned, "times", i, rounds, last)
            except GnomonError as error:
                # a crash or time-out takes the whole process: the variant that was being prepared is to blame
                if last.variant in (None, names[0]):
                    raise
                found.failures[last.variant] = str(error)
        found.add(result)
        if names[0] in found.failures:
            raise CheckFailed(f"the baseline {names[0]!r} failed: {found.failures[names[0]]}")

    ratios = _until_known(session, found, looks, clock, margin)
    return _comparison(task, found, ratios, looks, clock, "calls", started_at, {})


def compare_tasks(
    tasks: Mapping[str, Task],
    *,
    sessions: int | Looks | None = None,
    clock: Clock | None = None,
    calls: int | None = None,
    margin: float | None = MARGIN,
    progress: Progress | None = None,
    run: RunSession = run_session,
) -> Comparison:
    """Time different tasks against the first of them: one process for each and session, in random order.

    tasks: what to call each -> the task. They may be two models, two sizes, or one model at two commits. A pair of
    processes differs by more than two variants in one process, so this takes more sessions than `compare`.
    clock: default CPU time, wall time when one of them runs on another device. The rest is as for `compare`.

    Raises UsageError for an impossible request, and what a task raises that fails.
    """
    if len(tasks) < 2:
        raise UsageError(f"wanted at least two tasks to compare; got {list(tasks)}")
    names = list(tasks)
    looks = _looks(tasks[names[0]], sessions)
    rounds = {name: _rounds(task, calls) for name, task in tasks.items()}
    for task in tasks.values():
        checked(task, None)
    clock = clock or ("cpu" if all(task.device == "cpu" for task in tasks.values()) else "wall")
    say, started_at, found = progress or silent, now(), _Found(names)

    def session(i: int) -> None:
        for name in random.Random(i).sample(names, len(names)):
            say(f"session {i + 1} of {_most(looks)}: {name}")
            try:
                found.add(run(tasks[name], [Variant(name)], "times", i, rounds[name]))
            except GnomonError as error:
                raise type(error)(f"{name}: {error}", outcome=error.outcome) from error

    ratios = _until_known(session, found, looks, clock, margin)
    digests = {name: task.digest for name, task in tasks.items()}
    return _comparison(tasks[names[0]], found, ratios, looks, clock, "sessions", started_at, digests)


def session_times(sessions: Sequence[Session], clock: Clock) -> list[float]:
    """One time per session: the mean of the faster half of its calls."""
    return [fast_half_mean(clocked(session, clock)) for session in sessions]


@dataclass(slots=True)
class _Found:
    """What the sessions brought so far; the first name is the baseline's."""

    names: Sequence[str]
    done: dict[str, list[Session]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    allocator: str = ""

    def add(self, result: JSON) -> None:
        self.allocator = result["allocator"]
        for one in result["variants"]:
            if one["failure"] is not None:
                self.failures[one["name"]] = one["failure"]
                continue
            self.done.setdefault(one["name"], []).append(structure(Session, one["session"]))
            self.digests.setdefault(one["name"], one["digest"])

    def times(self, clock: Clock) -> dict[str, list[float]]:
        """One time per session of every variant that has not failed."""
        return {name: session_times(self.done[name], clock) for name in self.names if name not in self.failures}

    def ratios(self, clock: Clock, margin: float | None, looks: Looks) -> dict[str, RatioTest]:
        times = self.times(clock)
        base = times[self.names[0]]
        return {
            name: ratio_test(base, times[name], margin=margin, looks=looks) for name in self.names[1:] if name in times
        }


def _until_known(
    session: Callable[[int], None], found: _Found, looks: Looks, clock: Clock, margin: float | None
) -> dict[str, RatioTest]:
    ratios: dict[str, RatioTest] = {}
    for i in range(looks.most):
        session(i)
        if i + 1 in looks.sizes:
            ratios = found.ratios(clock, margin, looks)
            if all(test.verdict != "undecided" for test in ratios.values()):
                break
    return ratios


def _comparison(
    task: Task,
    found: _Found,
    ratios: Mapping[str, RatioTest],
    looks: Looks,
    clock: Clock,
    pairs: Literal["calls", "sessions"],
    started_at: str,
    digests: Mapping[str, str],
) -> Comparison:
    times = found.times(clock)
    warnings = []
    for name in ratios:
        warnings += ratio_drift(times[found.names[0]], times[name], name)
    for name in times:
        warnings += [f"{name}: {text}" for text in disturbances(found.done[name], clock, task.protocol.warmup_s)]
    if digests and len({found.digests[name] for name in found.names}) > 1:
        warnings.append("their outputs differ")
    return Comparison(
        task=task.name,
        task_digest=task.digest,
        baseline=found.names[0],
        clock=clock,
        variants=tuple(
            VariantTimes(n, tuple(found.done.get(n, ())), found.failures.get(n), found.digests.get(n))
            for n in found.names
        ),
        ratios=ratios,
        environment=environment(task, found.allocator, started_at),
        statistic="fast half",
        pairs=pairs,
        looks=looks.sizes if len(looks.sizes) > 1 else (),
        tasks=digests,
        warnings=tuple(warnings),
    )


class _Last:
    """Passes progress on and remembers which variant the child was preparing, None before and after."""

    def __init__(self, say: Progress) -> None:
        self._say = say
        self.variant: str | None = None

    def __call__(self, text: str) -> None:
        kind, _, name = text.partition(" ")
        self.variant = name if kind == "variant" else None
        self._say(text)


def _looks(task: Task, sessions: int | Looks | None) -> Looks:
    if isinstance(sessions, Looks):
        checked(task, None)
        return sessions
    return Looks((checked(task, sessions),))


def _most(looks: Looks) -> str:
    return f"at most {looks.most}" if len(looks.sizes) > 1 else str(looks.most)


def _rounds(task: Task, calls: int | None) -> int:
    if calls is not None and calls < 1:
        raise UsageError(f"wanted at least 1 call per session; got {calls}")
    return calls or max(task.protocol.calls, _CALLS)
