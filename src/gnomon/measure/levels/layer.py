"""The layer level: when each module's forward began and ended, by hooks that append a tuple and do nothing else.

A hooked call costs microseconds, a few per cent of a small model, so times of the layers are read from the layer run
only, that run's overhead is stated, and the cost of a hook pair, calibrated in the same process, is subtracted.
Modules see the forward pass only: of a training step, the backward pass and the optimizer are in no layer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gnomon.core.errors import CheckFailed
from gnomon.measure.clock import Clock
from gnomon.measure.levels.trace import Cost, Summary, cost_of, typical_times
from gnomon.measure.record import LayerTime, Span
from gnomon.measure.spans import with_parents
from gnomon.measure.timing import time_call
from gnomon.workload.program import Program

_BATCHES, _BATCH = 9, 200


_STEP = -1  # the module index of the step itself, which holds everything that a call did


class Event(NamedTuple):
    """Begin or end of a module call. module: index into the tracer's modules, -1 for the step as a whole."""

    module: int
    is_enter: bool
    wall_ns: int
    cpu_ns: int


def why_not(program: Program) -> str | None:
    """The reason why modules of this program cannot be traced, or None."""
    if program.model is None:
        return "an engine other than torch runs the model, so there are no modules to hook"
    for module in program.model.modules():
        if isinstance(module, torch._dynamo.eval_frame.OptimizedModule) or module._compiled_call_impl is not None:
            return "the model is compiled: its modules are fused into kernels that no hook sees"
        if isinstance(module, torch.jit.ScriptModule):
            return "the model is scripted: its modules run outside Python"
    return None


def tracer(program: Program, clock: Clock, synchronize: Callable[[], None] | None) -> "LayerTracer":
    """The tracer of this level."""
    return LayerTracer(program, clock, synchronize)


def summary(tracer: "LayerTracer", kept: Sequence[int], median: int, clock: Clock, name: str) -> Summary:
    """Times over the calls `kept`, spans of the call `median`; `name` is the step's."""
    cost = hook_cost(clock)
    layers = layer_times([tracer.calls[i] for i in kept], tracer.modules, tracer.output_shapes(), cost)
    spans, ambiguous = with_parents(layer_spans(tracer.calls[median], tracer.modules, name))
    calls = [layer_spans(tracer.calls[i], tracer.modules, name) for i in kept]
    return Summary(tuple(layers), (), spans, ambiguous, cost, typical=typical_times(calls, spans))


class LayerTracer:
    """Records the module calls of one step each time that its scope is entered and `step` called.

    synchronize: called before a time is read, on devices that run behind the host; it serialises the work.
    """

    def __init__(self, program: Program, clock: Clock, synchronize: Callable[[], None] | None = None) -> None:
        if program.model is None:
            raise ValueError("a program without a torch model has no layers")
        # a module used under two names is one module with its first name
        self.modules: list[tuple[str, nn.Module]] = list(program.model.named_modules())
        self.calls: list[list[Any]] = []  # events of each traced step
        self.plain, self._clock, self._synchronize = program.step, clock, synchronize
        self.rounds = 1

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Hooks are in place inside."""
        self.calls.append([])
        handles = []
        for i, (_, module) in enumerate(self.modules):
            before, after = self._hooks(i)
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def step(self) -> None:
        """One step of the program, itself recorded as the outermost event."""
        before, after = self._hooks(_STEP)
        before()
        self.plain()
        after()

    def _hooks(self, i: int) -> tuple[Callable[..., None], Callable[..., None]]:
        append, wall, cpu, synchronize = (
            self.calls[-1].append,
            self._clock.wall_ns,
            self._clock.cpu_ns,
            self._synchronize,
        )

        def before(*_: object) -> None:
            cpu_ns = cpu()
            append((i, True, wall(), cpu_ns))

        def after(*_: object) -> None:
            append((i, False, wall(), cpu()))

        if synchronize is None:
            return before, after

        def before_on_device(*_: object) -> None:
            synchronize()
            before()

        def after_on_device(*_: object) -> None:
            synchronize()
            after()

        return before_on_device, after_on_device

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the first tensor that each module returns, from one untimed step."""
        shapes: dict[str, tuple[int, ...]] = {}

        def keep(path: str) -> Callable[..., None]:
            def after(module: nn.Module, args: Any, output: Any) -> None:
                tensor = _first_tensor(output)
                if tensor is not None:
                    shapes[path] = tuple(tensor.shape)

            return after

        handles = [module.register_forward_hook(keep(path)) for path, module in self.modules]
        try:
            self.plain()
        finally:
            for handle in handles:
                handle.remove()
        return shapes


def hook_cost(clock: Clock) -> Cost:
    """What a hook pair costs: a module that does nothing, called with and without hooks."""
    model, x = nn.Identity(), torch.zeros(())

    def step() -> tuple[Tensor, ...]:
        for _ in range(_BATCH):
            model(x)
        return ()

    tracer = LayerTracer(cast(Program, _Calibration(model, step)), clock)
    inside, total = [], []
    for _ in range(_BATCHES):
        plain = time_call(step, clock).cpu_ns
        with tracer.scope():
            hooked = time_call(step, clock).cpu_ns
        events = tracer.calls.pop()
        # the forward in between does nothing, so all that its times show is the cost of reading them
        seen = sum(after[3] - before[3] for before, after in zip(events[::2], events[1::2], strict=True))
        inside.append(seen / _BATCH * 1e-9)
        total.append((hooked - plain) / _BATCH * 1e-9)
    return cost_of(inside, total)


class _Calibration(NamedTuple):
    model: nn.Module
    step: Callable[[], tuple[Tensor, ...]]


@dataclass(slots=True)
class Call:
    """One call of a module (or the step) with the calls inside it."""

    enter: Event
    exit: Event
    children: list["Call"]

    @property
    def wall_ns(self) -> int:
        return self.exit.wall_ns - self.enter.wall_ns

    @property
    def cpu_ns(self) -> int:
        return self.exit.cpu_ns - self.enter.cpu_ns


def call_tree(events: Iterable[tuple[int, bool, int, int]]) -> list[Call]:
    """The recorded calls as a forest. Raises CheckFailed when the begin of one has no end, or the reverse."""
    roots: list[Call] = []
    stack: list[Call] = []
    for event in map(Event._make, events):
        if event.is_enter:
            call = Call(event, event, [])
            (stack[-1].children if stack else roots).append(call)
            stack.append(call)
        elif stack and stack[-1].enter.module == event.module:
            stack.pop().exit = event
        else:
            raise CheckFailed(f"module {event.module} ended without having begun; do its hooks run in several threads?")
    if stack:
        raise CheckFailed(f"{len(stack)} module calls began and never ended; did the model catch its own exception?")
    return roots


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    self_cpu_s: float = 0.0


def layer_times(
    steps: Sequence[Sequence[tuple[int, bool, int, int]]],
    modules: Sequence[tuple[str, nn.Module]],
    shapes: Mapping[str, tuple[int, ...]],
    cost: Cost,
) -> list[LayerTime]:
    """Mean times per step of each module, in the order of `modules`, with the tracer's cost taken out.

    A call's self time is its raw self time less its own reading cost and what its children's hooks cost around them,
    and not below zero; its inclusive time is that plus its children's. So children never sum to more than their parent.
    """
    sums: dict[int, _Sum] = {}
    for events in steps:
        for root in call_tree(events):
            _add(root, sums, cost)
    n = len(steps)
    layers = []
    for i, (path, module) in enumerate(modules):
        if i in sums:
            s, kind = sums[i], type(module).__name__
            times = (s.wall_s / n, s.cpu_s / n, s.self_cpu_s / n)
            layers.append(LayerTime(path, kind, round(s.calls / n), *times, shapes.get(path)))
    return layers


def _add(call: Call, sums: dict[int, _Sum], cost: Cost) -> tuple[float, float]:
    """Adds a call and all below it; returns its corrected inclusive wall and CPU seconds."""
    inner = [_add(child, sums, cost) for child in call.children]
    tracing = cost.inside_s + len(inner) * max(cost.total_s - cost.inside_s, 0.0)
    raw_wall = call.wall_ns - sum(child.wall_ns for child in call.children)
    raw_cpu = call.cpu_ns - sum(child.cpu_ns for child in call.children)
    self_cpu = max(raw_cpu * 1e-9 - tracing, 0.0)
    wall = max(raw_wall * 1e-9 - tracing, 0.0) + sum(wall for wall, _ in inner)
    cpu = self_cpu + sum(cpu for _, cpu in inner)
    total = sums.setdefault(call.enter.module, _Sum())
    total.calls += 1
    total.wall_s += wall
    total.cpu_s += cpu
    total.self_cpu_s += self_cpu
    return wall, cpu


def layer_spans(
    events: Iterable[tuple[int, bool, int, int]], modules: Sequence[tuple[str, nn.Module]], name: str
) -> list[Span]:
    """One step as spans, parents not yet known: the step itself (called `name`) and every module call, as traced."""
    roots = call_tree(events)
    spans: list[Span] = []

    def visit(call: Call) -> None:
        start, times = (call.enter.wall_ns - roots[0].enter.wall_ns) * 1e-9, (call.wall_ns * 1e-9, call.cpu_ns * 1e-9)
        if call.enter.module == _STEP:
            spans.append(Span(name, "model", start, *times, None))
        else:
            path, module = modules[call.enter.module]
            kind = type(module).__name__
            spans.append(Span(path or kind, "layer", start, *times, None, {"module": path, "type": kind}))
        for child in call.children:
            visit(child)

    for root in roots:
        visit(root)
    return spans


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((tensor for item in items if (tensor := _first_tensor(item)) is not None), None)
