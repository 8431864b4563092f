"""Compare variants of a task: sessions in fresh processes, interleaved, turned into ratios. No torch here."""

import statistics
from collections.abc import Sequence
from typing import Literal

from gnomon.core.errors import CheckFailed, GnomonError, UsageError
from gnomon.core.records import structure
from gnomon.core.stats import ratio_test
from gnomon.measure.child import Progress, Variant, checked, clocked, environment, now, run_session, silent
from gnomon.measure.record import Comparison, Session, VariantTimes
from gnomon.spec.task import Task


def compare(
    task: Task,
    variants: Sequence[Variant],
    *,
    sessions: int | None = None,
    clock: Literal["wall", "cpu"] = "cpu",
    calls: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Time variants of a task against the first of them, interleaved call by call in the same fresh processes.

    calls: rounds per session, each variant once per round in random order (default: the task's protocol), at most 1 s
    per variant. clock: the one whose per-session medians the ratios compare; CPU time is blind to other users of
    the machine, wall time is what a device or several threads need. A variant that fails is recorded with its reason
    and left out from then on.

    Raises UsageError for an impossible request, and what the baseline raises when that fails.
    """
    sessions = checked(task, sessions)
    names = [variant.name for variant in variants]
    if not variants or len(set(names)) < len(names):
        raise UsageError(f"wanted variants with different names, the baseline first; got {names}")
    if calls is not None and calls < 1:
        raise UsageError(f"wanted at least 1 call per session; got {calls}")
    say, started_at, baseline = progress or silent, now(), variants[0]
    done: dict[str, list[Session]] = {name: [] for name in names}
    failures: dict[str, str] = {}
    digests: dict[str, str] = {}
    allocator = ""
    for i in range(sessions):
        result = None
        while result is None:
            running = [variant for variant in variants if variant.name not in failures]
            say(f"session {i + 1} of {sessions}: {', '.join(variant.name for variant in running)}")
            last = _Last(say)
            try:
                result = run_session(task, running, "times", i, calls or task.protocol.calls, last)
            except GnomonError as error:
                # a crash or time-out takes the whole process: the variant that was being prepared is to blame
                if last.variant in (None, baseline.name):
                    raise
                failures[last.variant] = str(error)
        allocator = result["allocator"]
        for one in result["variants"]:
            if one["failure"] is not None:
                failures[one["name"]] = one["failure"]
                continue
            done[one["name"]].append(structure(Session, one["session"]))
            digests.setdefault(one["name"], one["digest"])
        if baseline.name in failures:
            raise CheckFailed(f"the baseline {baseline.name!r} failed: {failures[baseline.name]}")
    medians = {name: [statistics.median(clocked(s, clock)) for s in done[name]] for name in names}
    ratios = {name: ratio_test(medians[baseline.name], medians[name]) for name in names[1:] if name not in failures}
    return Comparison(
        task=task.name,
        task_digest=task.digest,
        baseline=baseline.name,
        clock=clock,
        variants=tuple(VariantTimes(n, tuple(done[n]), failures.get(n), digests.get(n)) for n in names),
        ratios=ratios,
        environment=environment(task, allocator, started_at),
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
