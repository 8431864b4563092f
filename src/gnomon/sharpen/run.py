"""Try recipes on a task: verified in isolation, timed side by side, judged. Nothing here imports torch.

Neither the timing nor the process is known here: both come as functions, so that the caller decides on sessions, and a
test needs neither a clock nor a child.
"""

import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gnomon.core.errors import GnomonError, UsageError
from gnomon.core.records import structure, to_json
from gnomon.core.stats import RatioTest, fast_half_mean, ratio_test
from gnomon.devices.host import host
from gnomon.sharpen.judge import judge
from gnomon.sharpen.recipe import BASELINE, Variant, check_name, variant
from gnomon.sharpen.record import Change, Verification
from gnomon.spec.task import Task

Progress = Callable[[str], None]
Request = tuple[str, dict[str, Any]]  # a recipe and its options
T = TypeVar("T")

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
    workers: int | None = None,
) -> tuple[list[Change], Any]:
    """One Change per recipe, in the order given, and the comparison behind them (None when there was nothing to time).

    compare: times variants, the baseline first, interleaved; returns a Comparison as in measure/record.py. call: runs
    a function in a child, as core.process.call. artifacts: a folder of this task's own for what recipes make.
    options: recipe -> its options where they differ from the defaults. workers: processes that verify at the same time
    (default: 2 where there are as many cores, as a compiler takes longer than everything else); timing is never shared.

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
    requests = [(name, dict(given.get(name, {}))) for name in recipes]
    lanes = _lanes(requests, workers if workers is not None else host(run=lambda command: None).usable_cores)
    found = _side_by_side([partial(_verify, task, lane, call, artifacts, say) for lane in lanes])
    by_name = {one.recipe: one for lane in found for one in lane}
    verified = [by_name[name] for name in recipes]
    timed = [one for one in verified if one.distance is not None]
    comparison = None
    if timed:
        say(f"timing {', '.join(one.recipe for one in timed)} against {BASELINE}")
        variants = [variant(one.recipe, artifacts, one.options) for one in timed]
        comparison = compare(task, [Variant(BASELINE), *variants])
    return [_judged(task, one, comparison) for one in verified], comparison


def _lanes(requests: list[Request], workers: int) -> list[list[Request]]:
    """Recipes that wait for a compiler apart from the others, which may share exported files."""
    compiled = [one for one in requests if "compile" in one[0].split("+")]
    others = [one for one in requests if one not in compiled]
    return [compiled, others] if workers > 1 and compiled and others else [requests]


def _side_by_side(works: Sequence[Callable[[], T]]) -> list[T]:
    """What the functions return, each called in a thread of its own; the first error is raised once all have ended.

    Threads that do not outlive the program: an interrupt must not wait for children, which end with this process.
    """
    results: list[T | None] = [None] * len(works)
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            results[i] = works[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [result for result in results if result is not None]


def _verify(
    task: Task, recipes: list[Request], call: Callable[..., Any], artifacts: Path, say: Progress
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
    paces: dict[str, list[float]] = {}
    typical = fast_half_mean if comparison.statistic == "fast half" else statistics.median
    for one in comparison.variants:
        if one.failure is None and one.sessions:
            times = [s.cpu_s if comparison.clock == "cpu" else s.wall_s for s in one.sessions]
            paces[one.name] = [typical(session) for session in times]
    if a not in paces or b not in paces or len(paces[a]) != len(paces[b]):
        return None
    return ratio_test(paces[a], paces[b])


def _silent(text: str) -> None:
    """No progress is wanted."""
