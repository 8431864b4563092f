"""The kernel level: what ran below the operators. On a CUDA device its kernels, on a CPU what its libraries tell.

On a device: torch.profiler (CUPTI underneath). Kernels run behind the host, so containment in time says nothing about
who launched them: a kernel's parent is the operator with its correlation id, and that operator's layer, found by
containment on the host, is the kernel's. A kernel keeps two stretches of time: its launch on the host, by which it has
its place, and its execution on the device, which is its time (Li et al. 2020). On a CPU see `levels.library`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from gnomon.measure.clock import Clock
from gnomon.measure.levels import library
from gnomon.measure.levels.trace import Summary
from gnomon.measure.record import Span
from gnomon.measure.spans import parents
from gnomon.workload.program import Program

_STEP = "gnomon::step"
_LAYER = "gnomon::layer::"


def tracer(
    program: Program, clock: Clock, synchronize: Callable[[], None] | None
) -> "KernelTracer | library.LibraryTracer":
    """The tracer of this level; the profiler brings its own clock and needs no synchronization inside a step."""
    if not program.task.device.startswith("cuda"):
        return library.tracer(program, clock, synchronize)
    return KernelTracer(program)


def summary(
    tracer: "KernelTracer | library.LibraryTracer", kept: Sequence[int], median: int, clock: Clock, name: str
) -> Summary:
    """Spans of the call `median`; `name` is the step's."""
    if isinstance(tracer, library.LibraryTracer):
        return library.summary(tracer, kept, median, clock, name)
    spans, ambiguous = kernel_spans(tracer.calls[median], name, tracer.modules)
    kernels, lost = sum(span.level == "kernel" for span in spans), len(without_layer(spans))
    why = "modules see the forward pass only, and copies may have no operator"
    remarks = (f"{lost} of {kernels} kernels of a step are in no layer: {why}",) if lost else ()
    return Summary((), (), tuple(spans), ambiguous, None, remarks=remarks)


class Activity(NamedTuple):
    """One event of the profiler. operator: correlation id of the host operator: itself, or the one that launched it.

    launch: begin and duration of the runtime call that launched a kernel, None where it is not known.
    """

    name: str
    is_on_device: bool
    operator: int
    start_ns: int
    duration_ns: int
    launch: tuple[int, int] | None = None
    stream: int | None = None


def why_not(program: Program) -> str | None:
    """The reason why nothing below the operators can be seen, or None."""
    if not program.task.device.startswith("cuda"):
        return library.why_not(program)
    if torch.profiler.ProfilerActivity.CUDA not in torch.profiler.supported_activities():
        return "this torch was built without CUPTI; install a CUDA build of torch"
    return None


class KernelTracer:
    """Records layers, operators and kernels of one step each time that its scope is entered and `step` called."""

    def __init__(self, program: Program) -> None:
        self.calls: list[list[Activity]] = []
        self.plain: Callable[[], object] = program.step
        self.rounds = 1
        self.modules = [] if program.model is None else list(program.model.named_modules())

    @contextmanager
    def scope(self) -> Iterator[None]:
        """The profiler records inside; its events are read after it has stopped."""
        both = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        handles = [handle for i, (_, module) in enumerate(self.modules) for handle in _mark(i, module)]
        try:
            with torch.profiler.profile(activities=both) as profile:
                yield
        finally:
            for handle in handles:
                handle.remove()
        self.calls.append(activities(profile.profiler.kineto_results.events()))

    def step(self) -> None:
        """One step of the program, marked for the profiler."""
        with torch.profiler.record_function(_STEP):
            self.plain()


def _mark(index: int, module: nn.Module) -> tuple[Any, Any]:
    """Hooks that give each call of a module a range in the profile."""
    ranges: list[Any] = []  # a module can be called inside itself

    def before(*_: object) -> None:
        ranges.append(torch.profiler.record_function(f"{_LAYER}{index}"))
        ranges[-1].__enter__()

    def after(*_: object) -> None:
        ranges.pop().__exit__(None, None, None)

    return module.register_forward_pre_hook(before), module.register_forward_hook(after)


def activities(events: Iterable[Any]) -> list[Activity]:
    """What the profiler recorded, without the calls of the CUDA runtime, which become the launches of their kernels."""
    kept, launches = [], {}
    for event in events:
        on_device = event.device_type() != torch.autograd.DeviceType.CPU
        if on_device or event.name() == _STEP or "::" in event.name():
            kept.append((event, on_device))
        elif event.name().startswith("cu"):  # cudaLaunchKernel, cudaMemcpyAsync, cuLaunchKernel
            launches[event.correlation_id()] = (event.start_ns(), event.duration_ns())
    found = []
    for event, on_device in kept:
        times = (event.start_ns(), event.duration_ns())
        if not on_device:
            found.append(Activity(event.name(), False, event.correlation_id(), *times))
        elif not event.name().startswith("gnomon::"):  # ranges of the host are drawn on the device, too
            launch = launches.get(event.correlation_id())
            stream = event.device_resource_id()
            found.append(Activity(event.name(), True, event.linked_correlation_id(), *times, launch, stream))
    return found


def kernel_spans(
    activities: Sequence[Activity], name: str, modules: Sequence[tuple[str, nn.Module]] = ()
) -> tuple[list[Span], int]:
    """One step as spans with parents, and how many host spans have no unique parent by their times.

    The step (called `name`), layers and operators by containment, kernels by correlation. Raises ValueError when the
    mark of the step is missing. A kernel of an operator outside the step has no parent.
    """
    step = next((a for a in activities if a.name == _STEP and not a.is_on_device), None)
    if step is None:
        raise ValueError(f"the profile holds no {_STEP!r}; was the tracer's own step called?")
    host = [a for a in activities if not a.is_on_device]
    spans = [_host_span(a, name if a is step else None, step.start_ns, modules) for a in host]
    tree = parents(spans)
    spans = [replace(span, parent=parent) for span, parent in zip(spans, tree.parent, strict=True)]
    for i, span in enumerate(spans):
        if span.level == "operator":
            spans[i] = replace(span, attributes={**span.attributes, "module": _module(spans, i)})
    launched_by = {a.operator: i for i, a in enumerate(host) if a is not step and not a.name.startswith(_LAYER)}
    for a in activities:
        if a.is_on_device:
            parent = launched_by.get(a.operator)
            attributes: dict[str, Any] = {"device": True, "stream": a.stream}
            if a.launch is not None:
                attributes["launched_s"] = (a.launch[0] - step.start_ns) * 1e-9
                attributes["launch_wall_s"] = a.launch[1] * 1e-9
            if parent is not None:
                attributes["module"] = spans[parent].attributes["module"]
            times = ((a.start_ns - step.start_ns) * 1e-9, a.duration_ns * 1e-9)
            spans.append(Span(a.name, "kernel", *times, None, parent, attributes))
    return spans, len(tree.ambiguous)


def without_layer(spans: Sequence[Span]) -> list[int]:
    """The kernels that have no layer above them. Every other kernel has exactly one that is innermost."""

    def has_layer(index: int | None) -> bool:
        while index is not None:
            if spans[index].level == "layer":
                return True
            index = spans[index].parent
        return False

    return [i for i, span in enumerate(spans) if span.level == "kernel" and not has_layer(span.parent)]


def _module(spans: Sequence[Span], index: int) -> str:
    above = spans[index].parent
    while above is not None:
        if spans[above].level == "layer":
            return str(spans[above].attributes["module"])
        above = spans[above].parent
    return ""


def _host_span(a: Activity, step: str | None, start_ns: int, modules: Sequence[tuple[str, nn.Module]]) -> Span:
    times = ((a.start_ns - start_ns) * 1e-9, a.duration_ns * 1e-9)
    if step is not None:
        return Span(step, "model", *times, None, None)
    if a.name.startswith(_LAYER):
        path, module = modules[int(a.name.removeprefix(_LAYER))]
        kind = type(module).__name__
        return Span(path or kind, "layer", *times, None, None, {"module": path, "type": kind})
    return Span(a.name, "operator", *times, None, None)
