"""What a profile of neighborhood attention found."""

from dataclasses import dataclass, field

from gnomon.core.records import record


@dataclass(frozen=True, slots=True)
class BackendTimes:
    """One backend's times of one call (with its backward pass where that was asked for), in seconds.

    cpu_*: CPU time of the process over all threads; on a GPU that of the host. first_call_s: wall time of the first
    call, with compilation. memory_bytes: estimated peak beside the operands. largest_error: to the first backend,
    relative to the largest value. useful_flop_s: FLOP of the pairs that the window lets through, per wall second.
    """

    name: str
    cpu_min_s: float
    cpu_median_s: float
    wall_min_s: float
    wall_median_s: float
    first_call_s: float
    memory_bytes: int
    largest_error: float
    useful_flop_s: float


@record("attention-profile", 1)
@dataclass(frozen=True, slots=True)
class AttentionProfile:
    """Backends on one problem. rows: from the fastest to the slowest by wall_min_s. refused: backend -> reason.

    rounds: calls timed of each backend. dense_pairs, pairs: query-key pairs of all batches and heads, without and with
    the window. environment: device, threads and versions.
    """

    space: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    is_causal: tuple[bool, ...]
    batch: int
    heads: int
    heads_kv: int
    head_dim: int
    dtype: str
    device: str
    backward: bool
    rounds: int
    dense_pairs: int
    pairs: int
    environment: str
    measured_at: str
    rows: tuple[BackendTimes, ...]
    refused: dict[str, str] = field(default_factory=dict)
