"""A task under load in a fresh process. `serve` and `train` are called through `core.process`: plain JSON both ways."""

import itertools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gnomon.core.errors import CheckFailed
from gnomon.core.process import JSON, progress
from gnomon.core.records import from_json, structure, to_json
from gnomon.measure.clock import Clock
from gnomon.spec.task import Scenario, Task

if TYPE_CHECKING:
    from torch import Tensor

    from gnomon.workload.program import Program


def serve(arguments: JSON) -> JSON:
    """Load the task's model and batches into memory, warm up, and run one inference scenario on it.

    arguments: task, scenario, batches (in memory), timeout_s, give_up. Returns the recording's fields as lists,
    peak_rss_bytes, allocator.
    """
    from gnomon.measure.scenarios.run import run
    from gnomon.measure.scenarios.systems import Queued, Serial

    task, scenario = from_json(arguments["task"], Task), structure(Scenario, arguments["scenario"])
    program, synchronize = _program(task)
    batches, size = _batches(task, program, arguments["batches"]), _batch(task)
    samples = len(batches) * size

    def work(indices: tuple[int, ...]) -> None:
        # a batch is in memory as a whole: the query gets the one in which its first sample is
        program.predict(batches[indices[0] // size])
        synchronize()

    _warm_up(task, lambda: work((0,)))
    progress(scenario.name)
    with ExitStack() as stack:
        system = stack.enter_context(Queued(work, batch=size)) if scenario.name == "server" else Serial(work, size)
        recording = run(
            scenario, system, samples, name=f"task {task.name}", timeout_s=arguments["timeout_s"],
            give_up=arguments["give_up"],
        )  # fmt: skip
    arrays = {name: getattr(recording, name).tolist() for name in ("scheduled", "issued", "completed")}
    return {**arrays, "sample_latencies": recording.sample_latencies.tolist(), "ending": recording.ending, **_about()}


def train(arguments: JSON) -> JSON:
    """Train the task on fresh batches, one after the other. arguments: task, scenario, batches.

    Returns {run: TrainingRun, peak_rss_bytes, allocator}.
    """
    from gnomon.measure.scenarios import training

    task, scenario = from_json(arguments["task"], Task), structure(Scenario, arguments["scenario"])
    program, synchronize = _program(task)
    batches = itertools.cycle(_batches(task, program, arguments["batches"]))
    step_inputs: Any = program.step

    def step() -> float:
        step_inputs.inputs = next(batches)
        (loss,) = program.step()
        synchronize()
        return float(loss)

    progress("training")
    run = training.train(
        scenario, step, _evaluation(task, program), higher_is_better=task.quality.higher_is_better, clock=Clock()
    )
    return {"run": to_json(run), **_about()}


def _program(task: Task) -> tuple["Program", Callable[[], None]]:
    from gnomon.measure.session import start
    from gnomon.workload import program as workload

    started = start(task)
    return workload.build(task, device=task.device), started.synchronize or (lambda: None)


def _batches(task: Task, program: "Program", count: int) -> "list[Mapping[str, Tensor]]":
    """`count` batches in memory, each drawn from a seed of its own; the first is the program's."""
    from gnomon.workload.inputs import example_inputs
    from gnomon.workload.program import floating_dtype

    progress("loading samples")
    dtype = None if task.model.source == "onnx" else floating_dtype(task)
    drawn: list[Mapping[str, Tensor]] = [program.inputs]
    for i in range(1, count):
        batch = example_inputs(replace(task, seed=task.seed + i), dtype)
        drawn.append({name: value.to(task.device) for name, value in batch.items()})
    return drawn


def _batch(task: Task) -> int:
    return task.dims.get("B", 1)


def _warm_up(task: Task, call: Callable[[], None]) -> None:
    from gnomon.measure.timing import warm_up

    progress("warm-up")
    warm_up(call, Clock(), task.protocol.warmup_s)


def _evaluation(task: Task, program: "Program") -> Callable[[], float] | None:
    from gnomon.workload import source

    quality = task.quality
    if quality.evaluate is None or quality.metric is None:
        return None
    measure: Callable[..., Mapping[str, float]] = source.load(quality.evaluate, task, "quality.evaluate")
    metric = quality.metric

    def evaluate() -> float:
        found = measure(program.predict, dict(task.dims))
        if metric not in found:
            raise CheckFailed(f"{quality.evaluate} gives {', '.join(found) or 'nothing'}; wanted {metric!r}")
        return float(found[metric])

    return evaluate


def _about() -> dict[str, JSON]:
    from gnomon.measure.doctor import allocator_regime
    from gnomon.measure.session import peak_rss_bytes

    return {"peak_rss_bytes": peak_rss_bytes(), "allocator": allocator_regime()}
