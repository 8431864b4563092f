"""The operator level: CPU time of every ATen call, by a dispatch mode that brackets the call with two readings.

Why a dispatch mode and not torch.profiler: it sees the operators that `workload.capture` sees, under the same names and
shapes, so that measured times join the graph; it reads the CPU clock, where the profiler knows wall time alone; and it
knows the module. docs/measure.md compares the two. It works below autograd, so composite operators appear as
their parts, and an operator's own sub-calls are inside its time: nothing is counted twice.

An operator's time is what a plain call of it costs: the extra cost inside the bracket (clock, Python's call into the
dispatcher) is calibrated on an operator that does nothing and subtracted, with its uncertainty.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gnomon.measure.clock import Clock
from gnomon.measure.levels.layer import LayerTracer, layer_spans, why_not
from gnomon.measure.levels.trace import Cost, Summary, cost_of, typical_times
from gnomon.measure.record import OperatorTime, Span
from gnomon.measure.spans import with_parents
from gnomon.measure.timing import time_call
from gnomon.workload.program import Program

__all__ = ["OperatorTracer", "bracket_cost", "operator_spans", "operator_times", "summary", "tracer", "why_not"]

_BATCHES, _BATCH = 9, 200
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def tracer(program: Program, clock: Clock, synchronize: Callable[[], None] | None) -> "OperatorTracer":
    """The tracer of this level."""
    return OperatorTracer(program, clock, synchronize)


def summary(tracer: "OperatorTracer", kept: Sequence[int], median: int, clock: Clock, name: str) -> Summary:
    """Times over the calls `kept`, spans of the call `median`; `name` is the step's."""
    cost = bracket_cost(clock)
    operators = operator_times([tracer.calls[i] for i in kept], tracer.modules, cost)
    spans, ambiguous = with_parents(operator_spans(tracer.calls[median], tracer.modules, name))
    calls = [operator_spans(tracer.calls[i], tracer.modules, name) for i in kept]
    return Summary((), tuple(operators), spans, ambiguous, cost, typical=typical_times(calls, spans))


class OpEvent(NamedTuple):
    """One operator call. shapes: of its tensor arguments in order, tensors inside lists included."""

    operator: Any
    shapes: Sequence[Sequence[int]]
    wall_ns: int
    cpu_ns: int
    end_wall_ns: int
    end_cpu_ns: int


class _Bracket(TorchDispatchMode):
    def __init__(
        self,
        events: list[Any],
        clock: Clock,
        synchronize: Callable[[], None] | None,
        after: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._append, self._wall, self._cpu, self._synchronize = events.append, clock.wall_ns, clock.cpu_ns, synchronize
        self._after = after  # called when an operator's times have been read

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        wall, cpu = self._wall, self._cpu
        kwargs = kwargs or {}
        if _is_composite(func):  # reaches us whole only inside torch.inference_mode
            with self:  # not func.decompose: it prefers Python kernels that do other work, a clone for idle dropout
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        shapes = _shapes(args, kwargs)  # before the call: in-place operators may change them
        if self._synchronize is not None:
            self._synchronize()
        start_cpu = cpu()
        start_wall = wall()
        result = func(*args, **kwargs)
        if self._synchronize is not None:
            self._synchronize()
        end_wall = wall()
        self._append((func, shapes, start_wall, start_cpu, end_wall, cpu()))
        if self._after is not None:
            self._after()
        return result


@cache
def _is_composite(func: Any) -> bool:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return has_kernel(func.name(), _COMPOSITE) and not has_kernel(func.name(), "CPU")


def _shapes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Size]:
    shapes = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tensor):
            shapes.append(value.shape)
        elif isinstance(value, list | tuple):
            shapes += [item.shape for item in value if isinstance(item, Tensor)]
    return shapes


class OperatorTracer(LayerTracer):
    """Records operators and, to know their module, module calls: both in the order in which they happened."""

    @contextmanager
    def scope(self, after: Callable[[], None] | None = None) -> Iterator[None]:
        """Hooks and the dispatch mode are in place inside. after: called when an operator's times have been read."""
        with super().scope(), _Bracket(self.calls[-1], self._clock, self._synchronize, after):
            yield


def bracket_cost(clock: Clock) -> Cost:
    """What tracing one operator costs: a view, which computes nothing, called with and without the mode."""
    x = torch.zeros(4)

    def step() -> None:
        for _ in range(_BATCH):
            x.view(2, 2)

    inside, total = [], []
    with torch.no_grad():
        for _ in range(_BATCHES):
            plain = time_call(step, clock).cpu_ns
            events: list[Any] = []
            with _Bracket(events, clock, None):
                traced = time_call(step, clock).cpu_ns
            seen = sum(event[5] - event[3] for event in events)
            inside.append((seen - plain) / _BATCH * 1e-9)
            total.append((traced - plain) / _BATCH * 1e-9)
    return cost_of(inside, total)


def _split(events: Sequence[Any]) -> tuple[list[tuple[int, bool, int, int]], list[tuple[OpEvent, int]]]:
    """Module events, and operator events each with the index of the innermost module around it."""
    modules, operators, stack = [], [], [-1]
    for event in events:
        if not isinstance(event[0], int):
            operators.append((OpEvent._make(event), stack[-1]))
            continue
        modules.append(event)
        if event[1]:
            stack.append(event[0])
        else:
            stack.pop()
    return modules, operators


def operator_times(
    steps: Sequence[Sequence[Any]], modules: Sequence[tuple[str, nn.Module]], cost: Cost
) -> list[OperatorTime]:
    """Mean times per step by (operator, module, shapes), longest CPU time first, the tracer's own cost taken out."""
    sums: dict[tuple[str, str, tuple[tuple[int, ...], ...]], list[float]] = {}
    for events in steps:
        for event, module in _split(events)[1]:
            shapes = tuple(tuple(shape) for shape in event.shapes)
            key = (str(event.operator), modules[module][0] if module >= 0 else "", shapes)
            total = sums.setdefault(key, [0, 0.0, 0.0])
            total[0] += 1
            total[1] += (event.end_wall_ns - event.wall_ns) * 1e-9 - cost.inside_s
            total[2] += (event.end_cpu_ns - event.cpu_ns) * 1e-9 - cost.inside_s
    n = len(steps)
    times = [
        OperatorTime(name, module, shapes, round(calls / n), max(wall / n, 0.0), max(cpu / n, 0.0))
        for (name, module, shapes), (calls, wall, cpu) in sums.items()
    ]
    return sorted(times, key=lambda t: -t.cpu_s)


def operator_spans(events: Sequence[Any], modules: Sequence[tuple[str, nn.Module]], name: str) -> list[Span]:
    """One step as spans, parents not yet known: step, modules and operators, times as traced."""
    module_events, operators = _split(events)
    start_ns = module_events[0][2]
    spans = layer_spans(module_events, modules, name)
    for event, module in operators:
        attributes = {
            "module": modules[module][0] if module >= 0 else "",
            "shapes": tuple(tuple(shape) for shape in event.shapes),
        }
        wall_s, cpu_s = (event.end_wall_ns - event.wall_ns) * 1e-9, (event.end_cpu_ns - event.cpu_ns) * 1e-9
        start_s = (event.wall_ns - start_ns) * 1e-9
        spans.append(Span(str(event.operator), "operator", start_s, wall_s, cpu_s, None, attributes))
    return spans
