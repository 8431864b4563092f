"""What a forecast is, as stored. No torch here: the report reads these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gnomon.core.records import record

Bound = Literal["compute", "memory", "launch", "communication", "unknown"]
Host = Literal[
    "eager", "compiled", "cuda-graph"
]  # how the host launches: one by one, by a compiled wrapper, all at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds with an interval that should hold the truth nine times in ten."""

    value_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class OpForecast:
    """One operator of the graph (by index) on the device. bound: what limits it; 'unknown' has no cost rule."""

    index: int
    name: str
    module: str
    phase: str
    category: str
    time: Estimate
    bound: Bound


@record("forecast", 1)
@dataclass(frozen=True, slots=True)
class Forecast:
    """A workload on a device.

    total: one step. bound_shares: share of the device time by what limits it. peak_memory_bytes: parameters, gradients,
    optimizer state and activations; allocator slack and library workspaces are not in it. mfu: FLOP over time x peak.
    calibration: date and digest of the measurements on this device that corrected the predictor, '' without.
    energy_bound_j: power limit times the expected time of all devices of the step, None where no limit is known.
    parallel: empty for one device; else the degrees ('tensor', 'pipeline', 'data', 'micro_batches', 'zero'),
    'schedule', 'devices', and the parts of the step: 'communication_s' that nothing hides, 'idle_s' in which a device
    waits for others. Then ops are those of one micro-batch on all stages, and memory is the fullest device's.
    """

    task: str
    graph_digest: str
    device: str
    predictor: str
    dtype: str
    mode: str
    batch: int
    dims: Mapping[str, int]
    total: Estimate
    bound: Bound
    bound_shares: Mapping[str, float]
    ops: tuple[OpForecast, ...]
    flop: float
    mfu: float
    peak_memory_bytes: float
    memory_bytes: float
    fits: bool
    unknown_ops: Mapping[str, int]
    warnings: tuple[str, ...]
    host: Host = "eager"
    energy_bound_j: float | None = None
    parallel: Mapping[str, int | float | str] = field(default_factory=dict)
    calibration: str = ""
