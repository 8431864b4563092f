"""Try recipes on a task: verified in isolation, timed side by side, judged. Nothing here imports torch.

Neither the timing nor the process is known here: both come as functions, so that the caller decides on sessions, and a
test needs neither a clock nor a child.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gnomon.core.errors import GnomonError, UsageError
from gnomon.core.records import structure, to_json
from gnomon.core.stats import RatioTest, ratio_test
from gnomon.sharpen.judge import judge
from gnomon.sharpen.recipe import BASELINE, Variant, check_name, variant
from gnomon.sharpen.record import Change, Verification
from gnomon.spec.task import Task

Progress = Callable[[str], None]

EVALUATE = "gnomon.sharpen.verify:evaluate"
REFERENCES = ("onnx-fp32", "compile")  # what a user would pick instead, without giving up accuracy


def sharpen(
    task: Task,
    recipes: Sequence[str],
    *,
    compare: Callable[[Task, Sequence[Variant]], Any],
    call: Callable[..., Any],
    artifacts: Path,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
) -> tuple[list[Change], Any]:
    """One Change per recipe, in the order given, and the comparison behind them (None when there was nothing to time).

    compare: times variants, the baseline first, interleaved; returns a Comparison as in measure/record.py. call: runs
    a function in a child, as core.process.call. artifacts: a folder of this task's own for what recipes make.
    options: recipe -> its options where they differ from the defaults.

    Raises UsageError for an unknown or repeated recipe, and what the task raises when it fails without any recipe.
    """
    given, say = options or {}, progress or _silent
    for name in (*recipes, *given):
        check_name(name)
    if len(set(recipes)) < len(recipes):
        raise UsageError(f"wanted each recipe once; got {', '.join(recipes)}")
    if not recipes:
        return [], None
    artifacts = artifacts.absolute()
    verified = _verify(task, [(name, dict(given.get(name, {}))) for name in recipes], call, artifacts, say)
    timed = [one for one in verified if one.distance is not None]
    comparison = None
    if timed:
        say(f"timing {', '.join(one.recipe for one in timed)} against {BASELINE}")
        variants = [variant(one.recipe, artifacts, one.options) for one in timed]
        comparison = compare(task, [Variant(BASELINE), *variants])
    return [_judged(task, one, comparison) for one in verified], comparison


def _verify(
    task: Task, recipes: list[tuple[str, dict[str, Any]]], call: Callable[..., Any], artifacts: Path, say: Progress
) -> list[Verification]:
    """All recipes in one child. When one takes the child down, the others are verified again without it."""
    threads = str(task.threads)
    # as the measuring processes have it, so that what a compiler keeps for this environment is found by them
    env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONHASHSEED": "0", **task.env}
    results: dict[str, Verification] = {}
    while left := [(name, options) for name, options in recipes if name not in results]:
        last = _Last(say)
        arguments = {
            "task": to_json(task),
            "recipes": [{"recipe": name, "options": options} for name, options in left],
            "artifacts": str(artifacts),
        }
        try:
            found = call(EVALUATE, arguments, timeout_s=task.protocol.timeout_s, env=env, on_progress=last)
        except GnomonError as error:
            if last.recipe is None:  # the task itself
                raise
            results[last.recipe] = Verification(last.recipe, dict(left)[last.recipe], failure=str(error))
            continue
        for one in found:
            result: Verification = structure(Verification, one)
            results[result.recipe] = result
    return [results[name] for name, _ in recipes]


class _Last:
    """Passes progress on and remembers the recipe that the child was at."""

    def __init__(self, say: Progress) -> None:
        self._say = say
        self.recipe: str | None = None

    def __call__(self, text: str) -> None:
        kind, _, name = text.partition(" ")
        if kind == "recipe":
            self.recipe, text = name, f"applying and verifying {name}"
        self._say(text)


def _judged(task: Task, found: Verification, comparison: Any) -> Change:
    failure = None
    against: dict[str, RatioTest] = {}
    if comparison is not None:
        failures = {one.name: one.failure for one in comparison.variants}
        failure = failures.get(found.recipe)
        for reference in REFERENCES:
            if reference != found.recipe:
                ratio = ratio_between(comparison, reference, found.recipe)
                if ratio is not None:
                    against[reference] = ratio
    speedup = comparison.ratios.get(found.recipe) if comparison is not None else None
    return judge(task, found, baseline=BASELINE, speedup=speedup, against=against, failure=failure)


def ratio_between(comparison: Any, a: str, b: str) -> RatioTest | None:
    """How much faster variant `b` of a comparison is than variant `a`; None when one was not timed to the end."""
    medians: dict[str, list[float]] = {}
    for one in comparison.variants:
        if one.failure is None and one.sessions:
            times = [s.cpu_s if comparison.clock == "cpu" else s.wall_s for s in one.sessions]
            medians[one.name] = [statistics.median(session) for session in times]
    if a not in medians or b not in medians or len(medians[a]) != len(medians[b]):
        return None
    return ratio_test(medians[a], medians[b])


def _silent(text: str) -> None:
    """No progress is wanted."""
