"""Probes in a process of their own: what to measure goes in as names, times come back."""

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.core.process import JSON, call, progress
from gnomon.core.records import structure, to_json
from gnomon.measure.probes.cost import HostCost
from gnomon.measure.probes.timing import CpuStopwatch, CudaStopwatch, Reading, Rounds, Stopwatch

_COLD_BYTES = 3 * 2**24  # more than the caches of one core hold
_MOST_COPIES = 32
_START_S = 60.0  # to import, to build what is measured, and for the last visit


@dataclass(frozen=True, slots=True)
class Probed:
    """What one process measured. allocator: the regime that its memory came from. versions: package -> version."""

    host: HostCost
    readings: tuple[Reading, ...]
    allocator: str
    versions: dict[str, str]


def probe(
    names: Sequence[str],
    *,
    device: str = "cpu",
    threads: int = 1,
    budget_s: float,
    on_progress: Callable[[str], None] | None = None,
) -> Probed:
    """Measure probes of the pool, the first ones first, in a fresh process.

    device: 'cpu' or 'cuda', 'cuda:1'. budget_s: time for measuring. Raises UsageError for another device, NotRunnable
    where torch has no such device, and as `core.process.call` does.
    """
    arguments = {"names": list(names), "device": device, "threads": threads, "budget_s": budget_s}
    env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    timeout_s = 2 * budget_s + _START_S
    result = call("gnomon.measure.probes.run:session", arguments, timeout_s=timeout_s, env=env, on_progress=on_progress)
    found: Probed = structure(Probed, result)
    return found


def session(arguments: JSON) -> JSON:
    """The child's work; see `probe`."""
    import torch

    torch.set_num_threads(arguments["threads"])
    stopwatch = stopwatch_of(arguments["device"], torch.cuda)
    return to_json(_probed(arguments, stopwatch))


def index_of(device: str) -> int | None:
    """1 of 'cuda:1', 0 of 'cuda', None of 'cpu'. Raises UsageError for anything else."""
    kind, colon, index = device.partition(":")
    if device == "cpu":
        return None
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise UsageError(f"kernels are measured on 'cpu', 'cuda' or 'cuda:<index>'; got {device!r}")
    return int(index or 0)


def stopwatch_of(device: str, cuda: Any) -> Stopwatch:
    """The clock for a device. cuda: `torch.cuda`. Raises UsageError and NotRunnable as `probe`."""
    index = index_of(device)
    if index is None:
        return CpuStopwatch()
    count = cuda.device_count() if cuda.is_available() else 0
    if index >= count:
        raise NotRunnable(f"no GPU {device}; torch sees {count} here. `gnomon doctor` says why; or use --device cpu")
    return CudaStopwatch(cuda)


def _probed(arguments: JSON, stopwatch: Stopwatch) -> Probed:
    import numpy
    import torch

    from gnomon.measure.doctor import allocator_regime
    from gnomon.measure.probes.host import host_cost
    from gnomon.measure.probes.pool import pool

    device = arguments["device"]
    known = pool()
    side = 256 if device == "cpu" else 2048
    a, out = torch.full((side, side), 0.5, device=device), torch.empty(side, side, device=device)
    with torch.inference_mode():
        steps = {name: _Maker(known[name], device) for name in arguments["names"]}
        rounds = Rounds(steps, lambda: torch.mm(a, a, out=out), stopwatch)
        readings = rounds.run(arguments["budget_s"], progress)
    costs = [host_cost(stopwatch, device) for _ in range(3)]
    least = {name: min(getattr(cost, name) for cost in costs) for name in HostCost.__dataclass_fields__}
    least["page_s"] = statistics.median(cost.page_s for cost in costs)
    versions = {"torch": str(torch.__version__), "numpy": numpy.__version__}
    return Probed(HostCost(**least), tuple(readings), allocator_regime(), versions)


class _Maker:
    """Makes a probe's call when it is wanted, so that only one probe's memory is held at a time.

    As in a model, what a layer computes on was just written, its weights were last used a step ago, and its output goes
    where something older was: weights come in as many copies as caches cannot hold, outputs are kept for as long.
    """

    def __init__(self, probe: Any, device: str) -> None:
        self._probe, self._device = probe, device

    def __call__(self) -> Callable[[], Any]:
        function, inputs, cold = self._probe, self._probe.inputs, self._probe.weights
        values = [one.make(self._device) for one in inputs]
        copies = [values]
        for _ in range(_copies(sum(values[i].nbytes for i in cold)) - 1):
            copies.append([value.clone() if i in cold else value for i, value in enumerate(values)])
        kept: deque[Any] = deque([None] * _copies(_nbytes(function(*values))))
        turn = 0

        def step() -> None:
            nonlocal turn
            turn = (turn + 1) % len(copies)
            kept.append(function(*copies[turn]))
            kept.popleft()

        for _ in range(len(kept)):  # memory that was never touched belongs to the start of a process
            step()
        return step


def _copies(size: int) -> int:
    """How often something of so many bytes must exist to be out of the caches when its turn comes again."""
    return max(1, min(_MOST_COPIES, -(-_COLD_BYTES // size))) if size else 1


def _nbytes(outputs: Any) -> int:
    made = outputs if isinstance(outputs, list | tuple) else [outputs]
    return sum(one.nbytes for one in made if one is not None)
