"""One encoder layer on the accelerator, cycle by cycle: QKV, detection, exact attention, projection, feed-forward.

Lanes work side by side on heads, and on columns where there are no heads; all wait for each other between stages. A
stage lasts as long as its slowest lane or its traffic to DRAM, whichever is longer: memory is streamed ahead. What does
not fit into the lanes' SRAM between stages goes to DRAM and back. Not modelled: refresh and pages of DRAM, conflicts of
SRAM banks, and the time of the scheduler's queues, which are taken to keep up with the array.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gnomon.core.gantt import Bar
from gnomon.kernels.detected_attention.accelerator import masks
from gnomon.kernels.detected_attention.accelerator.attention import HeadRun, run_head
from gnomon.kernels.detected_attention.accelerator.design import EXACT_BITS, EXACT_BYTES, ORDERS, Design, Layer
from gnomon.kernels.detected_attention.accelerator.energy import Constants, constants
from gnomon.kernels.detected_attention.accelerator.multiplier import rate

STAGES = ("qkv", "detection", "attention", "projection", "ffn")
_NONZERO = 1 / 3  # of the entries of the sparse random projection (Achlioptas 2003)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. cycles: of the slowest lane or of DRAM. lane_cycles: each lane's own. dram_cycles: of its traffic.

    useful: products of 16 bits that the result needs, narrower ones by their share of a processing element's time.
    energy_j: of events, by name.
    """

    name: str
    cycles: int
    lane_cycles: tuple[int, ...]
    dram_cycles: int
    useful: float
    events: Mapping[str, float]
    energy_j: float

    @property
    def bound(self) -> str:
        return "memory" if self.dram_cycles > max(self.lane_cycles) else "compute"


@dataclass(frozen=True, slots=True)
class Simulation:
    """A layer on a design. name: what runs. loads: keys read for exact attention, by all heads. pairs: query-key pairs.

    bars: when each lane's array and softmax worked.
    """

    name: str
    layer: Layer
    design: Design
    stages: tuple[Stage, ...]
    loads: int
    pairs: int
    bars: tuple[Bar, ...] = ()

    @property
    def cycles(self) -> int:
        return sum(stage.cycles for stage in self.stages)

    @property
    def seconds(self) -> float:
        return self.cycles / self.design.clock_hz

    @property
    def energy_j(self) -> float:
        return sum(stage.energy_j for stage in self.stages)

    @property
    def utilization(self) -> float:
        """Useful products over those that all arrays could have made."""
        return sum(stage.useful for stage in self.stages) / self.capacity

    @property
    def capacity(self) -> float:
        return float(self.cycles * self.design.lanes * self.design.elements)

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def count(self, event: str) -> float:
        return sum(stage.events.get(event, 0.0) for stage in self.stages)


class _Lanes:
    """What the lanes do in one stage: cycles one after another on each, events together, bars for the trace."""

    def __init__(self, design: Design, start: int) -> None:
        self.design, self.start = design, start
        self.cycles = [0] * design.lanes
        self.events: defaultdict[str, float] = defaultdict(float)
        self.useful = 0.0
        self.bars: list[Bar] = []

    def product(self, lane: int, name: str, m: int, k: int, n: int, bits: int = EXACT_BITS, at_least: int = 0) -> None:
        """[m, k] x [k, n] with every output held by one element: tiles of rows x cols follow without a gap."""
        design = self.design
        tiles = -(-m // design.rows) * -(-n // design.cols)
        cycles = tiles * -(-k // rate(bits)) + design.rows + design.cols - 2 if tiles else 0
        self.events[f"multiply_{bits}"] += m * k * n
        self.events["accumulate"] += m * k * n
        self.events["sram_byte"] += tiles * k * (design.rows + design.cols) * bits / 8 + m * n * EXACT_BYTES
        self.useful += m * k * n / rate(bits)
        self.work(lane, name, max(cycles, at_least))

    def work(self, lane: int, name: str, cycles: int) -> None:
        first = self.cycles[lane]
        self.cycles[lane] += cycles
        self._bar(f"lane {lane} array", name, first, first + cycles)

    def head(self, lane: int, head: int, ran: HeadRun) -> None:
        first = self.cycles[lane]
        self.cycles[lane] += ran.cycles
        for busy in ran.busy:
            self._bar(f"lane {lane} {busy.unit}", f"head {head} {busy.name}", first + busy.start, first + busy.end)

    def _bar(self, track: str, name: str, first: int, last: int) -> None:
        if last > first:
            clock = self.design.clock_hz
            self.bars.append(Bar(track, name, (self.start + first) / clock, (self.start + last) / clock))

    def stage(self, name: str, dram_bytes: float, energies: Constants) -> Stage:
        self.events["dram_byte"] += dram_bytes
        dram_cycles = int(-(-dram_bytes // self.design.dram_bytes_cycle))
        events = {event: count for event, count in sorted(self.events.items()) if count}
        return Stage(
            name, max(*self.cycles, dram_cycles), tuple(self.cycles), dram_cycles, self.useful, events,
            energies.total_j(events),
        )  # fmt: skip


def simulate(
    layer: Layer,
    mask: NDArray[np.bool_],
    design: Design | None = None,
    *,
    name: str = "dota",
    detects: bool = True,
    energies: Constants | None = None,
) -> Simulation:
    """Run one layer. mask: [h, n, n] bool, the keys that every query keeps; it decides, not layer.retention.

    detects: whether a detector runs; without one the mask is known beforehand. energies: the shipped ones by default.
    Raises ValueError naming the argument for a mask of another shape, or a query without a key.
    """
    design, energies = design or Design(), energies or constants()
    mask = masks.checked(mask, layer)
    n, d, h, size = layer.tokens, layer.width, layer.heads, layer.head_dim
    lane_of = _deal([int(one.sum()) for one in mask], design.lanes)
    stages: list[Stage] = []
    bars: list[Bar] = []

    def begin() -> _Lanes:
        return _Lanes(design, sum(stage.cycles for stage in stages))

    def end(lanes: _Lanes, name: str, dram_bytes: float) -> None:
        stages.append(lanes.stage(name, dram_bytes, energies))
        bars.extend(lanes.bars)

    def spilled(held_bytes: float) -> float:
        """Traffic of what the lanes' SRAM cannot hold until it is used: written and read."""
        return 2 * max(0.0, held_bytes - design.lanes * design.sram_bytes)

    lanes = begin()
    for head, lane in enumerate(lane_of):
        lanes.product(lane, f"QKV of head {head}", n, d, 3 * size)
    end(lanes, "qkv", EXACT_BYTES * (3 * d * h * size + n * d) + spilled(EXACT_BYTES * 3 * n * h * size))
    if detects:
        lanes = begin()
        _detect(lanes, layer, lane_of)
        end(lanes, "detection", layer.bits / 8 * 2 * h * layer.rank**2)
    lanes, loads, pairs, missed_bytes = begin(), 0, 0, 0.0
    resident = min(1.0, design.sram_bytes / (2 * EXACT_BYTES * n * size))  # of the keys and values of a head
    for head, lane in enumerate(lane_of):
        ran = run_head(mask[head], size, design)
        lanes.head(lane, head, ran)
        _count_exact(lanes, ran, layer)
        loads, pairs = loads + ran.loads, pairs + ran.pairs
        missed_bytes += (1 - resident) * 2 * EXACT_BYTES * ran.loads * size
    end(lanes, "attention", missed_bytes)
    lanes = begin()
    for lane, columns in enumerate(_shares(d, design.lanes)):
        lanes.product(lane, "output projection", n, h * size, columns)
    end(lanes, "projection", EXACT_BYTES * h * size * d + spilled(EXACT_BYTES * n * d))
    lanes = begin()
    for lane, columns in enumerate(_shares(layer.ffn, design.lanes)):
        lanes.product(lane, "FFN 1", n, d, columns)
    for lane, columns in enumerate(_shares(d, design.lanes)):
        lanes.product(lane, "FFN 2", n, layer.ffn, columns)
    end(lanes, "ffn", EXACT_BYTES * (2 * d * layer.ffn + n * d) + spilled(EXACT_BYTES * n * layer.ffn))
    return Simulation(name, layer, design, tuple(stages), loads, pairs, tuple(bars))


def compare(
    layer: Layer, mask: NDArray[np.bool_], design: Design | None = None, *, is_causal: bool = False
) -> list[Simulation]:
    """The design with its detector, the same machine with other orders of the same keys, and dense: every key (up to
    its own, when causal) and no detector. Raises ValueError as `simulate`.
    """
    design = design or Design()
    orders = [design.order, *(order for order in ORDERS if order != design.order)]
    sparse = [simulate(layer, mask, replace(design, order=order), name=f"dota, {order}") for order in orders]
    every = masks.full(layer, is_causal)
    dense = replace(design, order="out-of-order")  # with every key wanted by all, out of order is in order
    return [*sparse, simulate(layer, every, dense, name="dense", detects=False)]


def _detect(lanes: _Lanes, layer: Layer, lane_of: Sequence[int]) -> None:
    """XP by additions, once and shared by all heads; then per head the two small maps and the estimated scores."""
    design, n, r = lanes.design, layer.tokens, layer.rank
    for lane, tokens in enumerate(_shares(n, design.lanes)):
        additions = round(tokens * layer.width * r * _NONZERO)
        lanes.work(lane, "XP", -(-additions // design.elements))
        lanes.events["add_16"] += additions
    lanes.events["sram_byte"] += EXACT_BYTES * n * (layer.width + r)
    lanes.events["quantize"] += n * r
    together = max(lanes.cycles)
    lanes.cycles = [together] * design.lanes  # every head needs all of XP
    compares = design.compares or design.elements
    for head, lane in enumerate(lane_of):
        for what in ("Q", "K"):
            lanes.product(lane, f"detector's {what} of head {head}", n, r, r, layer.bits)
        lanes.product(lane, f"estimate of head {head}", n, r, n, layer.bits, at_least=-(-n * n // compares))
        lanes.events["quantize"] += 2 * n * r
        lanes.events["compare"] += n * n
        lanes.events["sram_byte"] += 2 * n * n / 8  # the kept set, written and read by the scheduler, one bit a pair


def _count_exact(lanes: _Lanes, ran: HeadRun, layer: Layer) -> None:
    products = 2 * ran.pairs * layer.head_dim
    lanes.useful += products
    lanes.events["multiply_16"] += products
    lanes.events["accumulate"] += products
    for event in ("dequantize", "exponential", "normalize", "quantize"):
        lanes.events[event] += ran.pairs
    lanes.events["reciprocal"] += layer.tokens
    lanes.events["schedule"] += 2 * ran.loads  # into a queue and out of it
    # a key and a value for each load; queries once, outputs once
    lanes.events["sram_byte"] += EXACT_BYTES * layer.head_dim * (2 * ran.loads + 2 * layer.tokens)


def _deal(work: Sequence[int], lanes: int) -> list[int]:
    """The lane of every head: the most work first, each to the lane that has least so far."""
    total, lane_of = [0] * lanes, [0] * len(work)
    for head in sorted(range(len(work)), key=lambda i: (-work[i], i)):
        lane = min(range(lanes), key=lambda i: (total[i], i))
        lane_of[head] = lane
        total[lane] += work[head]
    return lane_of


def _shares(count: int, lanes: int) -> list[int]:
    """`count` columns dealt to lanes as evenly as can be."""
    return [count // lanes + (lane < count % lanes) for lane in range(lanes)]
