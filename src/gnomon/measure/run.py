"""Measure a task, or compare variants of it: sessions in fresh processes, one after the other, turned into records.

The machine is used by one session at a time, the levels take turns, and nothing here imports torch.
"""

import datetime
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any, Literal

import numpy as np

from gnomon.core.errors import CheckFailed, GnomonError, UnknownName, UsageError, did_you_mean
from gnomon.core.process import JSON, call
from gnomon.core.records import structure, to_json
from gnomon.core.stats import Interval, hierarchical_interval, ratio_test, trimmed_mean
from gnomon.devices.host import host
from gnomon.measure.levels.model import model_span
from gnomon.measure.levels.trace import Summary
from gnomon.measure.record import (
    LEVELS,
    Comparison,
    Environment,
    LayerTime,
    Level,
    LevelRun,
    Measurement,
    OperatorTime,
    Session,
    Span,
    VariantTimes,
)
from gnomon.spec.task import Task

Progress = Callable[[str], None]

_CALL_BUDGET_S = 1.0  # timed seconds per variant and session; a slow task gets fewer calls, not a longer run
_TRACED_CALLS = 20  # pairs of a traced and an untraced call: the ratio within a pair is far steadier than the times
_PACKAGES = ("torch", "numpy", "transformers", "onnxruntime", "onnx", "safetensors")
_BUSY = 0.9


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run a task. prepare: 'module:function', called as prepare(program, options) -> Program; None: as is."""

    name: str
    prepare: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def measure(
    task: Task,
    *,
    levels: Sequence[Level] = ("model", "layer", "operator"),
    variant: str = "eager",
    prepare: str | None = None,
    options: Mapping[str, Any] | None = None,
    sessions: int | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure a task on this machine, each level in calls of its own.

    levels: 'model' is always among them. variant, prepare, options: see `Variant`. sessions: fresh processes of the
    model level (default: the task's protocol); each deeper level takes two thirds of that, rounded up, as its overhead
    is a ratio within a process. A level that this variant or machine cannot trace becomes a warning.

    Raises UsageError for an impossible request, NotRunnable for a missing device, a time-out or too little memory,
    CheckFailed when the model fails, crashes or returns NaN.
    """
    sessions = _check(task, sessions)
    wanted = _ordered(levels)
    started_at = _now()
    chosen = Variant(variant, prepare, dict(options or {}))
    say = progress or _silent
    timed: list[JSON] = []
    traced: dict[Level, list[JSON]] = {level: [] for level in wanted if level != "model"}
    unavailable: dict[Level, str] = {}
    plan = {level: sessions if level == "model" else -(-2 * sessions // 3) for level in wanted}
    for i in range(sessions):
        deeper = [level for level in wanted if level != "model" and i < plan[level] and level not in unavailable]
        say(f"{variant}: session {i + 1} of {sessions}, {', '.join(['model', *deeper])}")
        more = {"levels": deeper, "traced_calls": min(task.protocol.calls, _TRACED_CALLS)}
        result = _child(task, [chosen], "levels", i, task.protocol.calls, more=more)
        timed.append(result)
        for level in deeper:
            if "unavailable" in result["levels"][level]:
                unavailable[level] = result["levels"][level]["unavailable"]
            else:
                traced[level].append(result["levels"][level])
    return _assemble(task, variant, timed, traced, unavailable, started_at)


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
    sessions = _check(task, sessions)
    names = [variant.name for variant in variants]
    if not variants or len(set(names)) < len(names):
        raise UsageError(f"wanted variants with different names, the baseline first; got {names}")
    if calls is not None and calls < 1:
        raise UsageError(f"wanted at least 1 call per session; got {calls}")
    say, started_at, baseline = progress or _silent, _now(), variants[0]
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
                result = _child(task, running, "times", i, calls or task.protocol.calls, last)
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
    medians = {name: [statistics.median(_clocked(s, clock)) for s in done[name]] for name in names}
    ratios = {name: ratio_test(medians[baseline.name], medians[name]) for name in names[1:] if name not in failures}
    return Comparison(
        task=task.name,
        task_digest=task.digest,
        baseline=baseline.name,
        clock=clock,
        variants=tuple(VariantTimes(n, tuple(done[n]), failures.get(n), digests.get(n)) for n in names),
        ratios=ratios,
        environment=_environment(task, allocator, started_at),
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


def _child(
    task: Task,
    variants: Sequence[Variant],
    function: str,
    seed: int,
    calls: int,
    say: Progress | None = None,
    more: Mapping[str, Any] | None = None,
) -> JSON:
    arguments = {
        "task": to_json(task),
        "variants": [to_json(variant) for variant in variants],
        "calls": calls,
        "budget_s": _CALL_BUDGET_S,
        "warmup_s": task.protocol.warmup_s,
        "seed": seed,
        **(more or {}),
    }
    # the pools of OpenMP and MKL are sized when the library is loaded; hashes order sets, so they are part of the seed
    threads = str(task.threads)
    env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONHASHSEED": "0", **task.env}
    if task.deterministic:
        env.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for, or cuBLAS is refused
    return call(
        f"gnomon.measure.session:{function}", arguments, timeout_s=task.protocol.timeout_s, env=env, on_progress=say
    )


def _check(task: Task, sessions: int | None) -> int:
    for name, size in task.dims.items():
        if size < 1:
            raise UsageError(f"task {task.name}: dimension {name} is {size}; a measurement needs a size of at least 1")
    sessions = task.protocol.sessions if sessions is None else sessions
    for name, count in (("sessions", sessions), ("calls", task.protocol.calls), ("threads", task.threads)):
        if count < 1:
            raise UsageError(f"task {task.name}: {name} is {count}; wanted at least 1")
    return sessions


def _ordered(levels: Iterable[str]) -> list[Level]:
    wanted = set(levels) | {"model"}
    for level in wanted:
        if level not in LEVELS:
            raise UnknownName(f"no level is called {level!r}.{did_you_mean(level, LEVELS)} Known: {', '.join(LEVELS)}")
    return [level for level in LEVELS if level in wanted]


def _assemble(
    task: Task,
    variant: str,
    timed: Sequence[JSON],
    traced: Mapping[Level, Sequence[JSON]],
    unavailable: Mapping[Level, str],
    started_at: str,
) -> Measurement:
    sessions = tuple(structure(Session, one["variants"][0]["session"]) for one in timed)
    digests = [one["variants"][0]["digest"] for one in timed]
    runs = [LevelRun("model", sessions, None)]
    summaries: dict[Level, list[Summary]] = {}
    spans: tuple[Span, ...] = (model_span(sessions[0], task.name),)
    clock: Literal["wall", "cpu"] = "cpu" if task.device == "cpu" else "wall"
    for level, results in traced.items():
        if not results:
            continue
        runs.append(
            LevelRun(level, tuple(structure(Session, r["session"]) for r in results), _overhead(results, clock))
        )
        summaries[level] = [structure(Summary, r["summary"]) for r in results]
        spans = summaries[level][0].spans
    mean = _percentiles([session.wall_s for session in sessions])
    cover, rest = _cover(traced.get("operator", ()), summaries.get("operator", []), unavailable)
    batch = task.dims.get("B", 1)
    return Measurement(
        task=task.name,
        task_digest=task.digest,
        variant=variant,
        mode=task.mode,
        batch=batch,
        dims=dict(task.dims),
        latency=mean,
        cpu_latency=_percentiles([session.cpu_s for session in sessions]),
        throughput_per_s=batch / mean["mean"].value,
        levels=tuple(runs),
        layers=_mean_layers(summaries.get("layer", [])),
        operators=_mean_operators(summaries.get("operator", [])),
        operators_cover=cover,
        rest=rest,
        spans=spans,
        output_digest=digests[0],
        environment=_environment(task, timed[0]["allocator"], started_at),
        warnings=tuple(_warnings(task, runs, digests, unavailable, summaries)),
    )


def _percentiles(sessions: Sequence[Sequence[float]]) -> dict[str, Interval]:
    statistic: dict[str, Callable[[np.ndarray], float]] = {
        "p50": lambda a: float(np.percentile(a, 50)),
        "p90": lambda a: float(np.percentile(a, 90)),
        "p99": lambda a: float(np.percentile(a, 99)),
        "mean": lambda a: float(a.mean()),
        "trimmed_mean": lambda a: trimmed_mean(a.tolist()),
    }
    return {name: hierarchical_interval(sessions, function) for name, function in statistic.items()}


def _clocked(session: Session, clock: Literal["wall", "cpu"]) -> tuple[float, ...]:
    return session.cpu_s if clock == "cpu" else session.wall_s


def _overhead(results: Sequence[JSON], clock: Literal["wall", "cpu"]) -> Interval:
    """How much longer traced calls took than the untraced calls beside them: the median over pairs, less 1."""
    pairs = []
    for result in results:
        traced, untraced = structure(Session, result["session"]), structure(Session, result["untraced"])
        both = zip(_clocked(traced, clock), _clocked(untraced, clock), strict=True)
        pairs.append([a / b - 1.0 for a, b in both])
    return hierarchical_interval(pairs, lambda a: float(np.median(a)))


def _cover(
    results: Sequence[JSON], summaries: Sequence[Summary], unavailable: Mapping[Level, str]
) -> tuple[float | None, str]:
    """Operators' share of the untraced step's CPU time, session by session, and what the rest is in words."""
    if not results:
        reason = unavailable.get("operator", "the operator level was not asked for")
        return None, f"not known: {reason}"
    shares, steps_s = [], []
    for result, summary in zip(results, summaries, strict=True):
        steps_s.append(trimmed_mean(structure(Session, result["untraced"]).cpu_s))
        shares.append(sum(operator.cpu_s for operator in summary.operators) / steps_s[-1])
    share, first = statistics.fmean(shares), summaries[0]
    calls = sum(operator.calls for operator in first.operators)
    modules = sum(span.level == "layer" for span in first.spans)
    rest_s = (1 - share) * statistics.fmean(steps_s)
    if share <= 1:
        text = (
            f"{1 - share:.1%} of the step's CPU time ({rest_s * 1e3:.3g} ms) is outside of operators: Python code of "
            f"{modules} module calls, arguments and dispatch of {calls} operator calls, autograd, release of results"
        )
    else:
        text = (
            f"traced operators took {share - 1:.1%} ({-rest_s * 1e3:.3g} ms) more CPU time than the untraced step: "
            f"each of the {calls} starts with caches that the tracer has used, and that hides what Python costs"
        )
    if first.cost is not None:
        costs = [summary.cost for summary in summaries if summary.cost is not None]
        inside, error = statistics.fmean(c.inside_s for c in costs), max(c.uncertainty_s for c in costs)
        text += (
            f". Taken out for the tracer: {inside * 1e6:.2f} ± {error * 1e6:.2f} us per operator call, "
            f"{calls * inside / statistics.fmean(steps_s):.1%} of the step"
        )
    return share, text


def _mean_layers(summaries: Sequence[Summary]) -> tuple[LayerTime, ...]:
    """Layers in the order of the model; times are means over sessions, so sums of children stay below their parents."""
    if not summaries:
        return ()
    by_path = [{layer.path: layer for layer in summary.layers} for summary in summaries]
    means = []
    for layer in summaries[0].layers:
        same = [table[layer.path] for table in by_path if layer.path in table]
        wall, cpu, own = (
            statistics.fmean(getattr(one, name) for one in same) for name in ("wall_s", "cpu_s", "self_cpu_s")
        )
        means.append(replace(layer, wall_s=wall, cpu_s=cpu, self_cpu_s=own))
    return tuple(means)


def _mean_operators(summaries: Sequence[Summary]) -> tuple[OperatorTime, ...]:
    grouped: dict[Any, list[OperatorTime]] = {}
    for summary in summaries:
        for one in summary.operators:
            grouped.setdefault((one.name, one.module, one.shapes), []).append(one)
    n = len(summaries)
    means = [
        replace(same[0], wall_s=sum(o.wall_s for o in same) / n, cpu_s=sum(o.cpu_s for o in same) / n)
        for same in grouped.values()
    ]
    return tuple(sorted(means, key=lambda one: -one.cpu_s))


def _warnings(
    task: Task,
    runs: Sequence[LevelRun],
    digests: Sequence[str],
    unavailable: Mapping[Level, str],
    summaries: Mapping[Level, Sequence[Summary]],
) -> list[str]:
    warnings = [f"level {level!r} is not available: {reason}" for level, reason in unavailable.items()]
    sessions = [session for run in runs for session in run.sessions]
    unstable = sum(not session.is_stable for session in sessions)
    if unstable:
        warnings.append(
            f"{unstable} of {len(sessions)} sessions were still changing by more than 5 % after "
            f"{task.protocol.warmup_s:g} s of warm-up; their times hold part of it. Is the machine busy?"
        )
    model = runs[0].sessions
    cpu, wall = sum(sum(s.cpu_s) for s in model), sum(sum(s.wall_s) for s in model)
    if task.device == "cpu" and cpu < _BUSY * wall:
        warnings.append(
            f"the process had a CPU for {cpu / wall:.0%} of the time: others use this machine, or the task waits. "
            "Wall times and throughput are too slow by as much; CPU times are not"
        )
    if len(set(digests)) > 1:
        warnings.append(
            f"{len(set(digests))} different outputs in {len(digests)} sessions: the task is not deterministic"
        )
    for level, found in summaries.items():
        if found[0].ambiguous:
            warnings.append(f"{found[0].ambiguous} spans of the {level} level have no unique parent by their times")
    return warnings


def _environment(task: Task, allocator: str, started_at: str) -> Environment:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    machine: Mapping[str, Any] = to_json(host())
    return Environment(machine, platform.python_version(), versions, task.threads, allocator, task.device, started_at)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _silent(text: str) -> None:
    """No progress is wanted."""
