"""A device: the few quantities of its data sheet that forecasts need, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from gnomon.core.errors import UsageError
from gnomon.core.records import NOT_EMPTY, POSITIVE, record

Precision = Literal["float64", "float32", "tf32", "float16", "bfloat16", "float8", "float4", "int8"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A positive number in base units and where it comes from: a key of the device's `sources`."""

    value: Annotated[float, POSITIVE]
    source: Annotated[str, NOT_EMPTY]


@record("device", 1)
@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator or CPU.

    peak_flop_s: dense multiply-add peak by precision, the fastest unit that can (tensor or matrix cores), FLOP/s.
    vector_flop_s: the same for the ordinary lanes, which elementwise work runs on; falls back to float32's peak.
    memory_bytes, memory_bandwidth_b_s: device memory. units: streaming multiprocessors, compute units or cores.
    clock_hz: boost clock. cache_bytes: last-level cache. link_b_s: to a peer in the node, one direction. pcie_b_s: to
    the host, one direction. network_b_s: out of the node, for each device, one direction. node_size: devices in a node.
    tdp_w: power limit.
    process_m: what the maker calls the lithography (12e-9 for 12 nm), from which energy per operation is estimated.
    sources: key -> a citation that a person can look up.
    """

    name: Annotated[str, NOT_EMPTY]
    vendor: Annotated[str, NOT_EMPTY]
    kind: Literal["gpu", "cpu"]
    architecture: str
    peak_flop_s: Mapping[str, Quantity]
    memory_bytes: Quantity
    memory_bandwidth_b_s: Quantity
    units: Quantity
    clock_hz: Quantity | None = None
    cache_bytes: Quantity | None = None
    link_b_s: Quantity | None = None
    pcie_b_s: Quantity | None = None
    network_b_s: Quantity | None = None
    node_size: Quantity | None = None
    tdp_w: Quantity | None = None
    process_m: Quantity | None = None
    vector_flop_s: Mapping[str, Quantity] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def peak(self, precision: str) -> float:
        """Dense peak in FLOP/s. Raises UsageError when the device has no such unit (float8 on a V100)."""
        if precision not in self.peak_flop_s:
            known = ", ".join(self.peak_flop_s)
            raise UsageError(f"{self.name} has no {precision} peak; it has {known}. Choose one of these with --dtype")
        return self.peak_flop_s[precision].value

    def vector(self, precision: str) -> float:
        """Peak of the ordinary lanes in FLOP/s, for work that is no matrix product."""
        for key in (precision, "float32"):
            for table in (self.vector_flop_s, self.peak_flop_s):
                if key in table:
                    return table[key].value
        raise UsageError(f"{self.name} states no float32 peak; add vector_flop_s.float32 to its file")
