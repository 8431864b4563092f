"""Does a comparison find a difference where there is none? A task against itself, on this machine, as it is now."""

import math
from dataclasses import dataclass
from typing import Literal

from gnomon.core.errors import UsageError
from gnomon.core.records import record
from gnomon.core.stats import Interval, RatioTest, binomial_interval, ratio_test, sd_interval
from gnomon.core.student import detectable_errors
from gnomon.measure.child import Clock, Progress, Variant, run_session
from gnomon.measure.compare import MARGIN, RunSession, compare, compare_tasks, session_times
from gnomon.measure.record import Comparison
from gnomon.spec.task import Task

_SIDES = ("A", "A again")


@record("same-check", 1)
@dataclass(frozen=True, slots=True)
class SameCheck:
    """A task compared with itself `trials` times, `sessions` fresh processes each.

    different: the share of trials that called the two different (false positives; 5 % are expected at most).
    equal: the trials that called them equal within `margin`. overall: all sessions as one comparison, which shows a
    bias if there is one. ratio_spread: standard deviation of a session's log ratio, what decides how much can be seen.
    between: standard deviation of a session's log time, what decides where sessions are not paired.
    pairs: as in Comparison.
    """

    task: str
    task_digest: str
    clock: Clock
    pairs: Literal["calls", "sessions"]
    trials: int
    sessions: int
    margin: float
    different: Interval
    equal: int
    overall: RatioTest
    ratio_spread: Interval
    between: Interval
    warnings: tuple[str, ...]

    def detectable(self, sessions: int) -> float:
        """The smallest relative difference that so many sessions (2 or more) find here with 80 % power."""
        return detectable_errors(sessions - 1) * self.ratio_spread.value / math.sqrt(sessions)


def check_same(
    task: Task,
    *,
    trials: int = 10,
    sessions: int = 3,
    apart: bool = False,
    clock: Clock | None = None,
    margin: float = MARGIN,
    progress: Progress | None = None,
    run: RunSession = run_session,
) -> tuple[SameCheck, Comparison]:
    """Compare a task with itself, `trials` times with `sessions` sessions each; no session serves two trials.

    apart: each side in processes of its own, as two tasks are compared, instead of both in one, as recipes are.
    Raises UsageError for too few trials or sessions, and as `compare` does.
    """
    if trials < 1 or sessions < 2:
        raise UsageError(f"wanted at least 1 trial of at least 2 sessions; got {trials} of {sessions}")
    clock = clock or ("cpu" if task.device == "cpu" else "wall")
    total = trials * sessions
    if apart:
        sides = dict.fromkeys(_SIDES, task)
        found = compare_tasks(sides, sessions=total, clock=clock, margin=margin, progress=progress, run=run)
    else:
        variants = [Variant(name) for name in _SIDES]
        found = compare(task, variants, sessions=total, clock=clock, margin=margin, progress=progress, run=run)
    return judged(found, trials, sessions, margin), found


def judged(found: Comparison, trials: int, sessions: int, margin: float) -> SameCheck:
    """The trials in a comparison of `trials` x `sessions` sessions, one block of sessions after the other."""
    a, b = (session_times(one.sessions, found.clock) for one in found.variants)
    blocks = [slice(i * sessions, (i + 1) * sessions) for i in range(trials)]
    tests = [ratio_test(a[block], b[block], margin=margin) for block in blocks]
    wrong = sum(test.verdict in ("faster", "slower") for test in tests)
    return SameCheck(
        task=found.task,
        task_digest=found.task_digest,
        clock=found.clock,
        pairs=found.pairs,
        trials=trials,
        sessions=sessions,
        margin=margin,
        different=binomial_interval(wrong, trials),
        equal=sum(test.verdict == "no difference" for test in tests),
        overall=found.ratios[_SIDES[1]],
        ratio_spread=sd_interval([math.log(x / y) for x, y in zip(a, b, strict=True)]),
        between=sd_interval([math.log(x) for x in a]),
        warnings=found.warnings,
    )
