"""Measure a task: sessions in fresh processes, one after the other, turned into records.

The machine is used by one session at a time, the levels take turns, and nothing here imports torch.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from gnomon.core.errors import UnknownName, did_you_mean
from gnomon.core.process import JSON
from gnomon.core.records import structure, to_json
from gnomon.core.stats import Interval, hierarchical_interval, trimmed_mean
from gnomon.measure.child import Progress, Variant, checked, environment, now, run_session, silent
from gnomon.measure.counters.instructions import count_instructions
from gnomon.measure.drift import drift
from gnomon.measure.levels.model import model_span
from gnomon.measure.levels.trace import Summary
from gnomon.measure.merge import adopt_parents
from gnomon.measure.pooled import counters, merged_call, overhead, stages, taken_out
from gnomon.measure.record import LEVELS, LayerTime, Level, LevelRun, Measurement, OperatorTime, Session
from gnomon.spec.task import Task

_TRACED_CALLS = 20  # pairs of a traced and an untraced call: the ratio within a pair is far steadier than the times
_BUSY = 0.9


def measure(
    task: Task,
    *,
    levels: Sequence[Level] = ("model", "layer", "operator"),
    variant: str = "eager",
    prepare: str | None = None,
    options: Mapping[str, Any] | None = None,
    sessions: int | None = None,
    instructions: bool = False,
    progress: Progress | None = None,
) -> Measurement:
    """Measure a task on this machine, each level in calls of its own.

    levels: 'model' is always among them; 'hardware' counts and traces nothing. variant, prepare, options: see
    `Variant`. sessions: fresh processes (default: the task's protocol), each of which runs every level. A level that
    this variant or machine cannot trace becomes a warning. instructions: count those of the plain task under valgrind,
    too, which takes minutes.

    Raises UsageError for an impossible request, NotRunnable for a missing device, a time-out or too little memory,
    CheckFailed when the model fails, crashes or returns NaN.
    """
    sessions = checked(task, sessions)
    wanted = _ordered(levels)
    started_at = now()
    chosen = Variant(variant, prepare, dict(options or {}))
    say = progress or silent
    timed: list[JSON] = []
    traced: dict[Level, list[JSON]] = {level: [] for level in wanted if level != "model"}
    unavailable: dict[Level, str] = {}
    for i in range(sessions):
        deeper = [level for level in wanted if level != "model" and level not in unavailable]
        say(f"{variant}: session {i + 1} of {sessions}, {', '.join(['model', *deeper])}")
        more = {"levels": deeper, "traced_calls": min(task.protocol.calls, _TRACED_CALLS)}
        result = run_session(task, [chosen], "levels", i, task.protocol.calls, more=more)
        timed.append(result)
        for level in deeper:
            if "unavailable" in result["levels"][level]:
                unavailable[level] = result["levels"][level]["unavailable"]
            else:
                traced[level].append(result["levels"][level])
    if "kernel" in traced and task.device != "cpu":
        _settle_parents(task, chosen, traced["kernel"], say)
    measurement = _assemble(task, variant, timed, traced, unavailable, started_at)
    if not instructions:
        return measurement
    exact = count_instructions(task, measurement.cpu_latency["p50"].value, say)
    return replace(measurement, counters=(*measurement.counters, exact))


def _settle_parents(task: Task, chosen: Variant, results: list[JSON], say: Progress) -> None:
    """Where times do not say who called whom, run once more with every launch serialised, for the parents alone."""
    first = structure(Summary, results[0]["summary"]) if results else None
    if first is None or not first.ambiguous:
        return
    say(f"{chosen.name}: {first.ambiguous} spans overlap; once more with serialised launches, for their parents")
    serial_task = replace(task, env={**task.env, "CUDA_LAUNCH_BLOCKING": "1"})
    more = {"levels": ["kernel"], "traced_calls": 3}
    result = run_session(serial_task, [chosen], "levels", 0, 3, more=more)["levels"]["kernel"]
    spans, lost = adopt_parents(first.spans, structure(Summary, result["summary"]).spans)
    remark = f"parents of kernels are those of a run with CUDA_LAUNCH_BLOCKING=1; {lost} spans were not in it"
    settled = replace(first, spans=spans, ambiguous=lost, remarks=(*first.remarks, remark))
    results[0]["summary"] = to_json(settled)


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
    clock: Literal["wall", "cpu"] = "cpu" if task.device == "cpu" else "wall"
    for level, results in traced.items():
        if not results:
            continue
        pairs = [(structure(Session, r["session"]), structure(Session, r["untraced"])) for r in results]
        summaries[level] = [structure(Summary, r["summary"]) for r in results]
        cost = taken_out(level, summaries[level], [untraced for _, untraced in pairs], clock)
        runs.append(LevelRun(level, tuple(traced for traced, _ in pairs), overhead(pairs, clock), cost))
    firsts = {level: found[0] for level, found in summaries.items()}
    merged = merged_call(model_span(sessions[0], task.name), sessions[0], firsts, f"application of {task.name}")
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
        spans=merged.spans,
        output_digest=digests[0],
        environment=environment(task, timed[0]["allocator"], started_at),
        warnings=tuple(_warnings(task, runs, digests, unavailable, summaries)),
        stages=stages(sessions, summaries.get("application", [])),
        counters=counters(summaries.get("hardware", [])),
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
    warnings += drift(model, "cpu" if task.device == "cpu" else "wall")
    if len(set(digests)) > 1:
        warnings.append(
            f"{len(set(digests))} different outputs in {len(digests)} sessions: the task is not deterministic"
        )
    for level, found in summaries.items():
        if found[0].ambiguous:
            warnings.append(f"{found[0].ambiguous} spans of the {level} level have no unique parent by their times")
        warnings += found[0].remarks
    return warnings
