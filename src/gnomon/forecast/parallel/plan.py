"""How a step is spread over devices."""

from dataclasses import dataclass
from typing import Literal

from gnomon.core.errors import UsageError

Schedule = Literal["gpipe", "1f1b"]
SCHEDULES: tuple[Schedule, ...] = ("gpipe", "1f1b")


@dataclass(frozen=True, slots=True)
class Parallel:
    """Degrees of parallelism; their product is the number of devices.

    tensor: devices that share every layer. pipeline: stages of layers. data: replicas, each with a batch of its own.
    micro_batches: parts of a replica's batch that pass one after the other (through the stages, or accumulating
    gradients). schedule: order of the stages' work, 'gpipe' (all forward, then all backward) or '1f1b'.
    zero: what the replicas share instead of each holding all: 1 optimizer state, 2 gradients too, 3 parameters too
    (fully sharded). Devices are numbered with tensor innermost, then data, then pipeline. Raises UsageError.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    micro_batches: int = 1
    schedule: Schedule = "1f1b"
    zero: int = 0

    def __post_init__(self) -> None:
        for name in ("tensor", "pipeline", "data", "micro_batches"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"wanted a whole number of at least 1 for {name}; got {value!r}")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"wanted a schedule out of {', '.join(SCHEDULES)}; got {self.schedule!r}")
        if self.zero not in (0, 1, 2, 3):
            raise UsageError(f"wanted zero out of 0, 1, 2, 3; got {self.zero!r}")
        if self.zero and self.data == 1:
            raise UsageError(
                f"zero {self.zero} shares among replicas; with data 1 there is one. Raise data or use zero 0"
            )

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def is_single(self) -> bool:
        """One device that takes the whole batch at once."""
        return self.devices == 1 and self.micro_batches == 1
