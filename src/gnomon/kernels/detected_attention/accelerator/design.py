"""What is simulated: the sizes of an encoder layer with its detector, and the sizes of the accelerator.

Qu et al., DOTA: Detect and Omit Weak Attentions for Scalable Transformer Acceleration, ASPLOS 2022
(doi 10.1145/3503222.3507738). The paper gives the structure; sizes that could not be verified are ours and can be set.
"""

import math
from dataclasses import dataclass
from typing import Literal

BITS = (2, 4, 8, 16)  # widths that the multipliers can be split into
EXACT_BITS = 16  # fixed point, of weights, activations and the exact path
EXACT_BYTES = EXACT_BITS // 8

Order = Literal["out-of-order", "in-order", "row-by-row"]
ORDERS: tuple[Order, ...] = ("out-of-order", "in-order", "row-by-row")


def _positive(record: object, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if not value >= 1:
            raise ValueError(f"{name} must be at least 1; got {value}")


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoder layer. tokens n, width d, heads h of head_dim d_h, ffn width; the detector's rank r and bits; the
    share of keys that every query keeps. Raises ValueError naming the argument.
    """

    tokens: int
    width: int
    heads: int
    head_dim: int
    ffn: int
    rank: int = 16
    bits: int = 4
    retention: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "tokens", "width", "heads", "head_dim", "ffn", "rank")
        if self.bits not in BITS:
            raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}; got {self.bits}")
        if not 0 < self.retention <= 1:
            raise ValueError(f"retention must be in (0, 1]; got {self.retention}")

    @property
    def kept(self) -> int:
        """Keys that a query keeps: ceil(retention * n). The small slack keeps 0.1 * 30 from becoming 4."""
        return max(1, math.ceil(self.retention * self.tokens - 1e-9))


@dataclass(frozen=True, slots=True)
class Design:
    """The accelerator. Raises ValueError naming the argument.

    lanes: identical, each with its own array, detector, scheduler, multi-function unit and SRAM. rows, cols: processing
    elements of a lane, one EXACT_BITS product a cycle each. queries: T, processed together. units: scores that a
    multi-function unit takes a cycle. sram_bytes, sram_bytes_cycle: of one lane. dram_bytes_cycle: shared by all lanes.
    compares: scores that a detector compares a cycle; 0 is one for each processing element.
    order: of the exact attention's keys. splits: whether a key that several queries want may be read again so that none
    of them waits (fewest cycles), or is always read once (least traffic).
    """

    lanes: int = 4
    rows: int = 32
    cols: int = 16
    queries: int = 4
    units: int = 64
    compares: int = 0
    sram_bytes: int = 640 * 1024
    sram_bytes_cycle: int = 512
    dram_bytes_cycle: int = 128
    clock_hz: float = 1e9
    order: Order = "out-of-order"
    splits: bool = True

    def __post_init__(self) -> None:
        names = ("lanes", "rows", "cols", "queries", "units", "sram_bytes", "sram_bytes_cycle", "dram_bytes_cycle")
        _positive(self, *names, "clock_hz")
        if self.compares < 0:
            raise ValueError(f"compares must not be negative; got {self.compares}")
        if self.queries > 8:
            raise ValueError(f"queries must be at most 8: the scheduler has 2^T - 1 queues; got {self.queries}")
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}; got {self.order!r}")

    @property
    def elements(self) -> int:
        """Processing elements of one lane."""
        return self.rows * self.cols
