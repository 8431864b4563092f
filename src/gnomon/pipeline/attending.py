"""Attention in windows: what its tiles cost on any device, and what its backends take on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnomon.core.errors import UsageError
from gnomon.devices import catalogue
from gnomon.devices.device import Device
from gnomon.forecast.windowed import Heads, Speedup, Windowed, expected_speedup, price
from gnomon.kernels.neighborhood_attention.problem import Problem
from gnomon.kernels.neighborhood_attention.published import CASES
from gnomon.kernels.neighborhood_attention.tiles import TileCount, TilePair, count, rank, valid_pairs
from gnomon.pipeline._progress import Progress, silent
from gnomon.store.store import Run

if TYPE_CHECKING:
    from gnomon.kernels.neighborhood_attention.record import AttentionProfile

PUBLISHED_ON = "H100-SXM"  # the catalogue's name of the GPU of the published measurements
_USUAL_ELEMENTS = 128  # queries, and keys, of a tile where nobody says otherwise


@dataclass(frozen=True, slots=True)
class SimulatedAttention:
    """A problem with tiles. expected: speed-up over a dense kernel that arithmetic holds up, on whatever device.
    forecasts: of the devices asked for. refused: device -> why it has none.
    """

    problem: Problem
    counted: TileCount
    flop_bound: float
    tile_bound: float
    expected: Speedup
    forecasts: tuple[Windowed, ...]
    refused: dict[str, str]


def simulate_attention(
    problems: Sequence[Problem],
    what: Heads,
    devices: Sequence[Device] = (),
    tiles: Sequence[TilePair] = (),
) -> list[SimulatedAttention]:
    """Count and forecast every problem with every tile; with the best usual tile of each problem when there is none.

    Raises ValueError for tiles that do not fit the problem, UsageError when no device can compute in the dtype.
    """
    found = []
    for problem in problems:
        counts = [count(problem, *pair) for pair in tiles] or ranked_tiles(problem)[:1]
        for counted in counts:
            forecasts, refused = [], {}
            for device in devices:
                try:
                    forecasts.append(price(counted, what, device))
                except UsageError as error:  # a device that lacks the dtype does not keep others from an answer
                    refused[device.name] = str(error)
            if devices and not forecasts:
                raise UsageError("\n".join(refused.values()))
            found.append(
                SimulatedAttention(problem, counted, counted.flop_bound, counted.tile_bound,
                                   expected_speedup(counted), tuple(forecasts), refused)
            )  # fmt: skip
    return found


def ranked_tiles(problem: Problem, queries: Sequence[int] = (), keys: Sequence[int] = ()) -> list[TileCount]:
    """Every valid pair of tiles of these sizes, the least work first; of the usual size when none is given, or of the
    largest power of two that fits a smaller grid. Raises ValueError for a size that is no power of two."""
    usual = _USUAL_ELEMENTS
    while usual > 1 and not list(valid_pairs(problem.space, (usual,), (usual,))):
        usual //= 2
    return rank(problem, valid_pairs(problem.space, queries or (usual,), keys or (usual,)))


def published_attention() -> list[Windowed]:
    """The published problems on the GPU on which they were measured, in half precision, forward."""
    device = catalogue.get(PUBLISHED_ON)
    return [price(case.counted, Heads(case.heads, case.head_dim, dtype="float16"), device) for case in CASES]


def attention_device(name: str, progress: Progress = silent) -> Device:
    """A device of the catalogue or of a file; 'cpu' is this machine, one thread, measured when it was not before."""
    if name != "cpu":
        return catalogue.get(name)
    from gnomon.measure.peaks import host_device

    return host_device(threads=1, progress=progress)


def profile_attention(
    run: Run,
    problem: Problem,
    what: Heads,
    *,
    device: str = "cpu",
    backends: Sequence[str] = (),
    repeats: int = 20,
    max_seconds: float = 120.0,
    progress: Progress = silent,
) -> "AttentionProfile":
    """Time every backend on this machine and keep the record; `backend="auto"` goes by it from now on.

    Raises ValueError naming the argument, also when no backend can run the problem.
    """
    import torch

    from gnomon.kernels.neighborhood_attention.profiling import profile

    found = profile(
        problem,
        batch=what.batch,
        heads=what.heads,
        heads_kv=what.kv_heads,
        head_dim=what.head_dim,
        dtype=getattr(torch, what.dtype),
        device=device,
        backward=what.backward,
        repeats=repeats,
        backends=backends or None,
        max_seconds=max_seconds,
        progress=progress,
    )
    run.add(found)
    return found
