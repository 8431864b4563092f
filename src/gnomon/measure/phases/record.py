"""What a characterization of graph networks found, as stored. No torch here: the report reads these."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gnomon.core.errors import UsageError
from gnomon.core.records import record
from gnomon.devices.device import Device
from gnomon.measure.record import Environment

Verdict = Literal["holds", "does not hold", "cannot be seen here"]
Kind = Literal["finding", "software", "hardware"]


class Ratio(NamedTuple):
    """The median over sessions of a ratio within each, and the least and largest of them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """A graph that was used. note: how it was made, and by how much it is smaller than the published one.

    published_vertices, published_edges: of the data set, directed edges; None for graphs that are ours.
    """

    name: str
    origin: str
    law: str
    note: str
    vertices: int
    edges: int
    features: int
    mean_degree: float
    largest_degree: int
    published_vertices: int | None = None
    published_edges: int | None = None


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """One step of a pass. cpu_s: the median over its rounds, one number per session. flop, bytes_moved: by counting."""

    layer: int
    phase: str
    cpu_s: tuple[float, ...]
    flop: int
    bytes_moved: int

    @property
    def seconds(self) -> float:
        return statistics.median(self.cpu_s)


@dataclass(frozen=True, slots=True)
class Timed:
    """One pass: a model, layer or sum over neighbours, on one graph in one way.

    group: the comparison that it was interleaved with. detail: what varies in it. widths: features in, through, out.
    edges: with the model's own loops. whole_s: the pass timed as a whole, one median per session. cover: its phases'
    sum over that.
    """

    group: str
    graph: str
    model: str
    order: str
    implementation: str
    detail: str
    widths: tuple[int, ...]
    vertices: int
    edges: int
    phases: tuple[PhaseTime, ...]
    whole_s: tuple[float, ...]
    cover: float

    @property
    def seconds(self) -> float:
        return statistics.median(self.whole_s)

    def of(self, phase: str) -> float:
        """Seconds in all steps of one phase."""
        return sum(step.seconds for step in self.phases if step.phase == phase)

    def shares(self, phase: str) -> tuple[float, ...]:
        """The phase's share of all phases' time, session by session."""
        found = []
        for i in range(len(self.whole_s)):
            total = sum(step.cpu_s[i] for step in self.phases)
            found.append(sum(step.cpu_s[i] for step in self.phases if step.phase == phase) / total if total else 0.0)
        return tuple(found)

    def share(self, phase: str) -> float:
        return statistics.median(self.shares(phase))

    def work(self, phase: str) -> tuple[int, int]:
        """FLOP and bytes of one phase."""
        steps = [step for step in self.phases if step.phase == phase]
        return sum(step.flop for step in steps), sum(step.bytes_moved for step in steps)

    def intensity(self, phase: str) -> float | None:
        """FLOP for each byte moved; None for a phase that moves none."""
        flop, moved = self.work(phase)
        return flop / moved if moved else None

    def times_faster_than(self, other: "Timed") -> Ratio:
        """How many times longer the other took, session by session."""
        ratios = [a / b for a, b in zip(other.whole_s, self.whole_s, strict=True)]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True, slots=True)
class Locality:
    """What an LRU cache, and one that keeps the most used rows, would hit of the neighbours' rows.

    rows: capacities, rising. lru, pinned: hit ratios, None without accesses. histogram: accesses by reuse distance 0,
    1, 2..3, 4..7 ... other rows; first accesses are in none.
    """

    graph: str
    vertex_order: str
    edge_order: str
    accesses: int
    distinct: int
    rows: tuple[int, ...]
    lru: tuple[float | None, ...]
    pinned: tuple[float | None, ...]
    histogram: tuple[int, ...]

    def at(self, rows: int) -> tuple[float | None, float | None]:
        """LRU and pinned hit ratio at one of the capacities. Raises UsageError for another."""
        if rows not in self.rows:
            raise UsageError(f"{self.graph}: no hit ratio for {rows} rows; there are {', '.join(map(str, self.rows))}")
        return self.lru[self.rows.index(rows)], self.pinned[self.rows.index(rows)]


@dataclass(frozen=True, slots=True)
class Balance:
    """Most edges of a worker over the mean, when vertices are shared out evenly and when edges are."""

    graph: str
    workers: int
    by_vertices: float
    by_edges: float


@dataclass(frozen=True, slots=True)
class Reduced:
    """Additions of a scatter into shared rows: all, those that meet another at their vertex, and the longest chain."""

    graph: str
    atomic: int
    conflicts: int
    largest: int


@dataclass(frozen=True, slots=True)
class Check:
    """One statement of the papers, held against what was measured here. values: the numbers behind the verdict."""

    key: str
    kind: Kind
    statement: str
    verdict: Verdict
    evidence: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do. gain: times faster, measured here; None where it was counted or simulated, as `text` then says."""

    about: str
    text: str
    gain: float | None


@record("gcn-characterization", 1)
@dataclass(frozen=True, slots=True)
class GcnCharacterization:
    """Aggregation and combination of graph networks on this machine.

    caches: name -> bytes, the caches for which hit ratios were simulated. left_out: what could not run, and why.
    """

    profile: str
    seed: int
    device: Device
    caches: Mapping[str, int]
    graphs: tuple[GraphFacts, ...]
    timed: tuple[Timed, ...]
    localities: tuple[Locality, ...]
    balances: tuple[Balance, ...]
    reductions: tuple[Reduced, ...]
    checks: tuple[Check, ...]
    advice: tuple[Advice, ...]
    environment: Environment
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def group(self, name: str) -> list[Timed]:
        return [one for one in self.timed if one.group == name]

    def locality(self, graph: str, vertex_order: str, edge_order: str = "by destination") -> Locality | None:
        return next(
            (one for one in self.localities
             if (one.graph, one.vertex_order, one.edge_order) == (graph, vertex_order, edge_order)),
            None,
        )  # fmt: skip


def only(passes: Iterable[Timed], **wanted: object) -> Timed | None:
    """The first pass whose fields are as wanted, None when there is none."""
    for one in passes:
        if all(getattr(one, name) == value for name, value in wanted.items()):
            return one
    return None
