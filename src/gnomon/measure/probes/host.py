"""What an operator costs before any of its work is done: Python, modules, dispatcher, autograd; and a fresh page.

Measured on operators of a single element, bare and inside modules, in inference and in the phases of a training step.
The optimizer's share is Adam's as PyTorch runs it by default on a CPU, one tensor after the other.
"""

import statistics
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnomon.measure.probes.cost import HostCost
from gnomon.measure.probes.timing import Stopwatch
from gnomon.measure.timing import Step
from gnomon.workload.capture import capture
from gnomon.workload.graph import OpGraph

_BLOCKS = 12
_BATCHES = 15
_FRESH_BYTES = 96 * 2**20  # three times what the C library keeps
PAGE_BYTES = 4096


class _Block(nn.Module):
    """Three small operators and two views in a module, as in the glue between the layers of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(x * self.scale + self.shift)
        return y.view(1, 1).transpose(0, 1)


def host_cost(stopwatch: Stopwatch, device: str = "cpu") -> HostCost:
    """Measured now. On a GPU nothing is asked of the device that would make the host wait."""
    x = torch.ones(1, device=device)
    with torch.inference_mode():
        bare_s = _least(stopwatch, lambda: torch.add(x, x), 200)
        view_s = _least(stopwatch, lambda: x.view(1, 1), 200)
    model = nn.Sequential(*[_Block() for _ in range(_BLOCKS)])
    example = torch.ones(1, 1)
    inference = _Counts.of(capture(model, example, name="tiny"))
    training = _Counts.of(capture(model, example, name="tiny", mode="training", optimizer="adam"))
    model, example = model.to(device), example.to(device)
    with torch.inference_mode():
        inference_s = _least(stopwatch, lambda: model(example), 10)
    optimizer = torch.optim.Adam(model.parameters(), foreach=False)

    phases: dict[str, list[float]] = {"forward": [], "backward": [], "optimizer": []}
    losses: list[Tensor] = []
    for _ in range(_BATCHES):
        optimizer.zero_grad(set_to_none=True)
        phases["forward"].append(stopwatch(lambda: losses.append(model(example).mean()), 1))
        phases["backward"].append(stopwatch(lambda: losses.pop().backward(), 1))
        phases["optimizer"].append(stopwatch(optimizer.step, 1))
    return HostCost(
        bare_s=bare_s,
        view_s=view_s,
        page_s=_page(stopwatch) if device == "cpu" else 0.0,
        inference_s=inference.per_operator(inference_s, "forward", view_s),
        **{f"{phase}_s": training.per_operator(min(times), phase, view_s) for phase, times in phases.items()},
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """Operators and views by phase."""

    operators: Counter[str]
    views: Counter[str]

    @classmethod
    def of(cls, graph: OpGraph) -> "_Counts":
        views = [str(op.phase) for op in graph.ops if op.category == "view"]
        return cls(Counter(str(op.phase) for op in graph.ops if op.category != "view"), Counter(views))

    def per_operator(self, seconds: float, phase: str, view_s: float) -> float:
        """What is left for each operator when the phase's views are paid; not below a view."""
        return max(seconds - self.views[phase] * view_s, self.operators[phase] * view_s) / self.operators[phase]


def _least(stopwatch: Stopwatch, step: Step, repeat: int) -> float:
    """The quickest of some batches: what disturbs a batch of microseconds only ever adds."""
    stopwatch(step, repeat)
    return min(stopwatch(step, repeat) for _ in range(_BATCHES))


def _page(stopwatch: Stopwatch) -> float:
    """Filling fresh memory against filling it once more."""
    kept = torch.empty(_FRESH_BYTES, dtype=torch.uint8).fill_(1)
    fresh = [stopwatch(lambda: torch.empty(_FRESH_BYTES, dtype=torch.uint8).fill_(1), 1) for _ in range(5)]
    again = [stopwatch(lambda: kept.fill_(1), 1) for _ in range(5)]
    return max(statistics.median(fresh) - statistics.median(again), 0.0) / (_FRESH_BYTES / PAGE_BYTES)
