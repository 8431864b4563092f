"""The training scenario: steps per second, the loss on the way, and the time until the model is good enough."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gnomon.core.errors import CheckFailed
from gnomon.core.records import record
from gnomon.core.stats import Interval, t_interval
from gnomon.measure.clock import Clock, elapsed
from gnomon.measure.record import Environment
from gnomon.spec.task import Scenario

Outcome = Literal["reached", "not-reached", "no-target"]
_BLOCKS = 10  # neighbouring steps are alike, so the interval is over means of blocks
_MOST_POINTS = 2000  # of the stored loss curve


@dataclass(frozen=True, slots=True)
class Point:
    """step: steps done. seconds: of training until then, evaluations left out. value: loss or quality."""

    step: int
    seconds: float
    value: float


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What was seen. step_s: seconds per step. evaluation_s: all evaluations together. reached: where the target was
    met; None where it was not, or where there was none."""

    step_s: tuple[float, ...]
    losses: tuple[float, ...]
    quality: tuple[Point, ...]
    evaluation_s: float
    reached: Point | None


@record("training-result", 1)
@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A task trained for some steps. target: in words; None without one. time_to_target_s: training time alone, without
    evaluations; None when it was not reached. peak_rss_bytes: resident memory of the process at its largest.
    loss_curve: at most 2000 points, evenly spaced, the first and last among them.
    """

    task: str
    task_digest: str
    scenario: Scenario
    outcome: Outcome
    target: str | None
    steps: int
    steps_per_s: Interval
    samples_per_s: float
    step_s: Mapping[str, float]
    loss_curve: tuple[Point, ...]
    quality_curve: tuple[Point, ...]
    steps_to_target: int | None
    time_to_target_s: float | None
    evaluation_s: float
    duration_s: float
    peak_rss_bytes: int
    said: str
    environment: Environment | None = None


def train(
    scenario: Scenario,
    step: Callable[[], float],
    evaluate: Callable[[], float] | None = None,
    *,
    higher_is_better: bool = True,
    clock: Clock | None = None,
) -> TrainingRun:
    """Call `step`, which returns its loss, until the scenario ends.

    evaluate: the quality, asked for every scenario.evaluate_every steps when there is a target_quality. A target_loss
    is compared with the mean of the last evaluate_every losses. Without a target the run ends once min_queries steps
    and min_duration_s are done. Raises CheckFailed when a loss or quality is not finite, or the clock goes backwards.
    """
    if scenario.target_quality is not None and evaluate is None:
        raise ValueError("target_quality needs a way to evaluate; give one, or a target_loss")
    clock = clock or Clock()
    step_ns: list[int] = []
    losses: list[float] = []
    quality: list[Point] = []
    trained_ns, evaluated_ns, reached = 0, 0, None
    while reached is None and not _is_over(scenario, len(losses), trained_ns * 1e-9):
        start = clock.wall_ns()
        loss = step()
        step_ns.append(elapsed(start, clock.wall_ns(), "wall"))
        trained_ns += step_ns[-1]
        losses.append(_finite(loss, "loss", len(losses) + 1))
        if len(losses) % scenario.evaluate_every:
            continue
        if scenario.target_quality is not None and evaluate is not None:
            start = clock.wall_ns()
            value = _finite(evaluate(), "quality", len(losses))
            evaluated_ns += elapsed(start, clock.wall_ns(), "wall")
            quality.append(Point(len(losses), trained_ns * 1e-9, value))
            good = value >= scenario.target_quality if higher_is_better else value <= scenario.target_quality
            reached = quality[-1] if good else None
        elif scenario.target_loss is not None:
            value = float(np.mean(losses[-scenario.evaluate_every :]))
            if value <= scenario.target_loss:
                reached = Point(len(losses), trained_ns * 1e-9, value)
    seconds = tuple(ns * 1e-9 for ns in step_ns)
    return TrainingRun(seconds, tuple(losses), tuple(quality), evaluated_ns * 1e-9, reached)


def training_result(
    scenario: Scenario,
    run: TrainingRun,
    *,
    batch: int,
    peak_rss_bytes: int,
    metric: str | None = None,
    higher_is_better: bool = True,
    task: str = "",
    task_digest: str = "",
    environment: Environment | None = None,
) -> TrainingResult:
    """Figures of a run. batch: samples in a step. Raises CheckFailed when the clock saw no time pass."""
    duration_s = math.fsum(run.step_s)
    if duration_s <= 0:
        raise CheckFailed("the clock saw no time pass during the steps of training", outcome="zero-length")
    steps_per_s = _rate(run.step_s)
    target = _target(scenario, metric, higher_is_better)
    outcome: Outcome = "no-target" if target is None else "not-reached" if run.reached is None else "reached"
    ordered = np.sort(np.asarray(run.step_s))
    return TrainingResult(
        task=task,
        task_digest=task_digest,
        scenario=scenario,
        outcome=outcome,
        target=target,
        steps=len(run.step_s),
        steps_per_s=steps_per_s,
        samples_per_s=steps_per_s.value * batch,
        step_s={name: float(ordered[int(len(ordered) * p)]) for name, p in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))},
        loss_curve=_curve(run),
        quality_curve=run.quality,
        steps_to_target=run.reached.step if run.reached else None,
        time_to_target_s=run.reached.seconds if run.reached else None,
        evaluation_s=run.evaluation_s,
        duration_s=duration_s,
        peak_rss_bytes=peak_rss_bytes,
        said=_said(run, target, duration_s),
        environment=environment,
    )


def _is_over(scenario: Scenario, steps: int, seconds: float) -> bool:
    most, longest = scenario.max_queries, scenario.max_duration_s
    if (most is not None and steps >= most) or (longest is not None and seconds >= longest):
        return True
    has_target = scenario.target_quality is not None or scenario.target_loss is not None
    return not has_target and steps >= scenario.min_queries and seconds >= scenario.min_duration_s


def _finite(value: float, what: str, step: int) -> float:
    if not math.isfinite(value):
        raise CheckFailed(f"the {what} is {value} after {step} steps; a lower learning rate may keep it finite")
    return float(value)


def _rate(step_s: Sequence[float]) -> Interval:
    """Steps per second: all steps over all time, the interval from means over blocks of neighbouring steps."""
    value = len(step_s) / math.fsum(step_s)
    blocks = np.array_split(np.asarray(step_s), min(_BLOCKS, len(step_s)))
    mean = t_interval([float(block.mean()) for block in blocks])
    low = None if mean.high is None else 1 / mean.high
    high = None if mean.low is None or mean.low <= 0 else 1 / mean.low
    return Interval(value, low, high, mean.level, len(blocks))


def _target(scenario: Scenario, metric: str | None, higher_is_better: bool) -> str | None:
    if scenario.target_quality is not None:
        return f"{metric or 'quality'} {'>=' if higher_is_better else '<='} {scenario.target_quality:g}"
    if scenario.target_loss is not None:
        return f"mean loss of {scenario.evaluate_every} steps <= {scenario.target_loss:g}"
    return None


def _said(run: TrainingRun, target: str | None, duration_s: float) -> str:
    steps = len(run.step_s)
    if target is None:
        return f"{steps} steps in {duration_s:.3g} s; no target was set"
    if run.reached is not None:
        return f"{target} was reached after {run.reached.step} steps, {run.reached.seconds:.3g} s of training"
    last = f"; it was {run.quality[-1].value:.4g} at the end" if run.quality else ""
    return f"{target} was not reached in {steps} steps, {duration_s:.3g} s of training{last}"


def _curve(run: TrainingRun) -> tuple[Point, ...]:
    ends = np.cumsum(run.step_s)
    chosen = np.unique(np.linspace(0, len(run.losses) - 1, min(len(run.losses), _MOST_POINTS)).round().astype(int))
    return tuple(Point(int(i) + 1, float(ends[i]), run.losses[i]) for i in chosen)
