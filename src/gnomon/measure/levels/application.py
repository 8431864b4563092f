"""The application level: what a user of the model waits for. Reading, preprocessing, the model, postprocessing.

Each call takes one batch of the dataset through `workload.application`, stages one after the other. A traced call notes
when its stages began and ended; an untraced one is the same pipeline without an observer. The model inside is called
after other code has used the caches, so it may take longer than in the model level's run: that is the application's.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from gnomon.core.errors import NotRunnable
from gnomon.measure.clock import Clock, elapsed
from gnomon.measure.levels.trace import StageTimes, Summary, typical_times
from gnomon.measure.record import Span
from gnomon.workload.application import application, batches
from gnomon.workload.program import Program, TrainingStep

CALL = "call"
_MODEL = "run"  # the stage that is the model


def why_not(program: Program) -> str | None:
    """The reason why this program cannot run as an application, or None. Raises ManifestError for a broken stage."""
    try:
        application(program, queue=0)
    except NotRunnable as error:
        return str(error)
    return None


def tracer(program: Program, clock: Clock, synchronize: Callable[[], None] | None) -> "ApplicationTracer":
    """The tracer of this level; the pipeline itself waits for the device at the end of a run."""
    return ApplicationTracer(program, clock)


def summary(tracer: "ApplicationTracer", kept: Sequence[int], median: int, clock: Clock, name: str) -> Summary:
    """Stages over the calls `kept`, spans of the call `median`; `name` is the task's."""
    tracer.close()
    calls = [tracer.calls[i] for i in kept]
    stages = [StageTimes(CALL, *zip(*((c.wall_s, c.cpu_s) for c in calls), strict=True))]
    for stage in dict.fromkeys(part.stage for call in calls for part in call.parts):
        parts = [part for call in calls for part in call.parts if part.stage == stage]
        stages.append(StageTimes(stage, tuple(p.wall_ns * 1e-9 for p in parts), tuple(p.cpu_ns * 1e-9 for p in parts)))
    spans = application_spans(tracer.calls[median], name)
    typical = typical_times([application_spans(call, name) for call in calls], spans)
    return Summary((), (), spans, 0, None, stages=tuple(stages), typical=typical)


class Part(NamedTuple):
    """One stage of one call. cpu_ns: of the thread that ran it."""

    stage: str
    start_ns: int
    end_ns: int
    cpu_ns: int

    @property
    def wall_ns(self) -> int:
        return self.end_ns - self.start_ns


class Call(NamedTuple):
    """One batch through the application."""

    start_ns: int
    end_ns: int
    cpu_ns: int
    parts: Sequence[Part]

    @property
    def wall_s(self) -> float:
        return elapsed(self.start_ns, self.end_ns, "wall") * 1e-9

    @property
    def cpu_s(self) -> float:
        return self.cpu_ns * 1e-9


class ApplicationTracer:
    """Takes a fresh batch through the application at every call of `step` (traced) and of `plain`."""

    def __init__(self, program: Program, clock: Clock) -> None:
        self.calls: list[Call] = []
        self.rounds = 1
        self.scope: Callable[[], AbstractContextManager[None]] = nullcontext
        self._program, self._clock = program, clock
        self._parts: list[Part] = []
        plain = application(program, queue=0).stream(batches(program.task))
        self.plain: Callable[[], Any] = plain.__next__
        self._traced = application(program, queue=0, observer=self._observe).stream(self._read())

    def step(self) -> None:
        """One batch, its stages noted."""
        self._parts = []
        cpu, start = self._clock.cpu_ns(), self._clock.wall_ns()
        next(self._traced)
        end = self._clock.wall_ns()
        self.calls.append(Call(start, end, self._clock.cpu_ns() - cpu, self._parts))

    def _observe(self, stage: str, item: int, start_ns: int, end_ns: int, cpu_ns: int) -> None:
        self._parts.append(Part(stage, start_ns, end_ns, cpu_ns))

    def _read(self) -> Iterator[Any]:
        source = batches(self._program.task)
        while True:
            cpu, start = self._clock.cpu_ns(), self._clock.wall_ns()
            batch = next(source)
            end = self._clock.wall_ns()
            self._observe("read", 0, start, end, self._clock.cpu_ns() - cpu)
            yield batch

    def close(self) -> None:
        """A training step has its own batch again."""
        if isinstance(self._program.step, TrainingStep):
            self._program.step.inputs = self._program.inputs


def application_spans(call: Call, name: str) -> tuple[Span, ...]:
    """The call with its stages inside; the stage that is the model is a span of the model level, called `name`."""
    spans = [Span(CALL, "application", 0.0, call.wall_s, call.cpu_s, None)]
    for part in call.parts:
        start_s, wall_s, cpu_s = (part.start_ns - call.start_ns) * 1e-9, part.wall_ns * 1e-9, part.cpu_ns * 1e-9
        if part.stage == _MODEL:
            spans.append(Span(name, "model", start_s, wall_s, cpu_s, 0))
        else:
            spans.append(Span(part.stage, "application", start_s, wall_s, cpu_s, 0))
    return tuple(spans)
