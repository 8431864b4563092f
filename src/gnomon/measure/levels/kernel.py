"""The kernel level: what ran on the GPU and which operator launched it, from torch.profiler (CUPTI underneath).

Kernels run behind the host, so containment in time says nothing about who launched them: a kernel's parent is the
operator with its correlation id. Times are the device's own; nothing is subtracted.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from gnomon.measure.clock import Clock
from gnomon.measure.levels.trace import Summary
from gnomon.measure.record import Span
from gnomon.measure.spans import parents
from gnomon.workload.program import Program

_STEP = "gnomon::step"


def tracer(program: Program, clock: Clock, synchronize: Callable[[], None] | None) -> "KernelTracer":
    """The tracer of this level; the profiler brings its own clock and needs no synchronization inside a step."""
    return KernelTracer(program)


def summary(tracer: "KernelTracer", kept: Sequence[int], median: int, clock: Clock, name: str) -> Summary:
    """Spans of the call `median`; `name` is the step's."""
    return Summary((), (), tuple(kernel_spans(tracer.calls[median], name)), 0, None)


class Activity(NamedTuple):
    """One event of the profiler. operator: correlation id of the host operator: itself, or the one that launched it."""

    name: str
    is_on_device: bool
    operator: int
    start_ns: int
    duration_ns: int


def why_not(program: Program) -> str | None:
    """The reason why no kernels can be traced, or None."""
    if not program.task.device.startswith("cuda"):
        return (
            f"kernels are seen on CUDA devices; this task runs on {program.task.device!r}, where operators are the end"
        )
    if torch.profiler.ProfilerActivity.CUDA not in torch.profiler.supported_activities():
        return "this torch was built without CUPTI; install a CUDA build of torch"
    return None


class KernelTracer:
    """Records operators and kernels of one step each time that its scope is entered and `step` called."""

    def __init__(self, program: Program) -> None:
        self.calls: list[list[Activity]] = []
        self._step: Callable[[], object] = program.step

    @contextmanager
    def scope(self) -> Iterator[None]:
        """The profiler records inside; its events are read after it has stopped."""
        both = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=both) as profile:
            yield
        self.calls.append(_activities(profile.profiler.kineto_results.events()))

    def step(self) -> None:
        """One step of the program, marked for the profiler."""
        with torch.profiler.record_function(_STEP):
            self._step()


def _activities(events: Sequence[Any]) -> list[Activity]:
    activities = []
    for event in events:
        on_device = event.device_type() != torch.autograd.DeviceType.CPU
        operator = event.linked_correlation_id() if on_device else event.correlation_id()
        if on_device or event.name() == _STEP or "::" in event.name():  # not the runtime's own cudaLaunchKernel
            activities.append(Activity(event.name(), on_device, operator, event.start_ns(), event.duration_ns()))
    return activities


def kernel_spans(activities: Sequence[Activity], name: str) -> list[Span]:
    """One step as spans with parents: the step (called `name`), operators by containment, kernels by correlation.

    Raises ValueError when the mark of the step is missing. A kernel of an operator outside the step has no parent.
    """
    step = next((a for a in activities if a.name == _STEP and not a.is_on_device), None)
    if step is None:
        raise ValueError(f"the profile holds no {_STEP!r}; was the tracer's own step called?")
    host = [a for a in activities if not a.is_on_device]
    spans = [_span(a, name if a is step else a.name, "model" if a is step else "operator", step.start_ns) for a in host]
    tree = parents(spans)
    spans = [replace(span, parent=parent) for span, parent in zip(spans, tree.parent, strict=True)]
    launched_by = {a.operator: i for i, a in enumerate(host) if a is not step}
    for a in activities:
        if a.is_on_device and a.name != _STEP:
            kernel = _span(a, a.name, "kernel", step.start_ns)
            spans.append(replace(kernel, parent=launched_by.get(a.operator)))
    return spans


def _span(a: Activity, name: str, level: Any, start_ns: int) -> Span:
    return Span(name, level, (a.start_ns - start_ns) * 1e-9, a.duration_ns * 1e-9, None, None)
