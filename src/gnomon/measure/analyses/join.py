"""What was measured, joined with what was computed: times of the measurement with FLOP and bytes of the graph.

The distance to the roofline is time over the least time that this machine's peaks allow (Williams et al. 2009,
doi 10.1145/1498765.1498785): 1 is the roofline; below 1 the data came from a cache, whose bandwidth is above memory's.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gnomon.devices.device import Device
from gnomon.measure.analyses.roofline import Limit, roof
from gnomon.measure.record import LayerTime, Measurement, OperatorTime
from gnomon.workload.graph import Op, OpGraph

_Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One module. parent: index of the nearest measured module around it. label: its path below that one.

    Times are seconds per call of the task. share: of the task's CPU time. flop, moved_bytes: with all that is inside,
    forward only, of which read_bytes and written_bytes are the parts; None when the graph has no operator there.
    uncosted: operators inside that no cost rule knows.
    """

    path: str
    label: str
    type: str
    depth: int
    parent: int | None
    calls: int
    wall_s: float
    cpu_s: float
    self_cpu_s: float
    share: float
    flop: float | None
    moved_bytes: float | None
    uncosted: int
    output_shape: tuple[int, ...] | None
    read_bytes: float | None = None
    written_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """All calls of one operator with the same shapes. flop, moved_bytes: of all its calls, None when not known.

    time_s: what rates are taken from: CPU time with one thread (less noisy), else wall time. bound_s: least time on
    this machine's roofline; 0 for an operator that only changes how data is seen. dtype: of its arithmetic.
    """

    name: str
    shapes: _Shapes
    modules: tuple[str, ...]
    category: str
    calls: int
    wall_s: float
    cpu_s: float
    time_s: float
    share: float
    flop: float | None
    moved_bytes: float | None
    bound_s: float | None
    limited_by: Limit
    read_bytes: float | None = None
    written_bytes: float | None = None
    dtype: str | None = None

    @property
    def intensity(self) -> float | None:
        """FLOP per byte of memory traffic."""
        return self.flop / self.moved_bytes if self.flop and self.moved_bytes else None

    @property
    def flop_s(self) -> float | None:
        return self.flop / self.time_s if self.flop is not None and self.time_s > 0 else None

    @property
    def bytes_s(self) -> float | None:
        return self.moved_bytes / self.time_s if self.moved_bytes is not None and self.time_s > 0 else None

    @property
    def distance(self) -> float | None:
        """Time over roofline bound; None where there is no bound."""
        return self.time_s / self.bound_s if self.bound_s else None


@dataclass(frozen=True, slots=True)
class Floor:
    """The operators' time against the roofline, in seconds per call.

    compute_s, memory_s: least time of the operators that arithmetic or memory bandwidth limits. excess_s: time above
    that: kernels that fall short of the peaks, and the host's work per operator. uncosted_s: time of operators
    without a cost rule.
    """

    compute_s: float
    memory_s: float
    excess_s: float
    uncosted_s: float

    @property
    def limited_by(self) -> Limit:
        if self.compute_s == self.memory_s == 0:
            return "unknown"
        return "compute" if self.compute_s >= self.memory_s else "memory"

    @property
    def distance(self) -> float | None:
        """How many times longer than their roofline bound the operators with a known cost take."""
        floor = self.compute_s + self.memory_s
        return (floor + self.excess_s) / floor if floor else None


def base_name(name: str) -> str:
    """'aten.addmm.default', 'aten::addmm', 'addmm' -> 'addmm': the operator without library and overload."""
    return name.replace("::", ".").removeprefix("aten.").removeprefix("gnomon.").split(".")[0]


def module_pattern(paths: Iterable[str], most: int = 3) -> str:
    """Module paths in short: numbers as '*', modules side by side in braces, at most `most` patterns.

    'layer.0.q', 'layer.0.k', 'layer.1.q', 'layer.1.k' -> 'layer.*.{q, k}'.
    """
    beside: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        around, _, last = re.sub(r"(?<![^.])\d+(?![^.])", "*", path).rpartition(".")
        if last not in beside[around]:
            beside[around].append(last)
    patterns = []
    for around, names in beside.items():
        last = names[0] if len(names) == 1 else "{" + ", ".join(names) + "}"
        patterns.append(f"{around}.{last}" if around else last or "(model)")
    left = len(patterns) - most
    return ", ".join(patterns[:most]) + (f" and {left} more" if left > 0 else "")


def layers(measurement: Measurement, graph: OpGraph) -> tuple[LayerRow, ...]:
    """The measured modules as a tree in pre-order, each with its parent, the graph's FLOP and bytes joined by path."""
    measured = {layer.path: layer for layer in measurement.layers}
    inside: dict[str, list[str]] = defaultdict(list)
    for path in measured:
        inside[_nearest(path, measured)].append(path)
    inside[""] = [path for path in inside[""] if path]  # the root is not inside itself
    flop, read, written, uncosted = _inclusive(graph)
    total = measured[""].cpu_s if "" in measured else math.fsum(layer.self_cpu_s for layer in measurement.layers)
    rows: list[LayerRow] = []

    def add(layer: LayerTime, parent: int | None) -> None:
        above = rows[parent].path if parent is not None else ""
        rows.append(
            LayerRow(
                path=layer.path,
                label=layer.path.removeprefix(above + "." if above else "") or "(model)",
                type=layer.type,
                depth=rows[parent].depth + 1 if parent is not None else 0,
                parent=parent,
                calls=layer.calls,
                wall_s=layer.wall_s,
                cpu_s=layer.cpu_s,
                self_cpu_s=layer.self_cpu_s,
                share=layer.cpu_s / total if total > 0 else 0.0,
                flop=flop.get(layer.path),
                moved_bytes=read[layer.path] + written[layer.path] if layer.path in read else None,
                uncosted=uncosted.get(layer.path, 0),
                output_shape=layer.output_shape,
                read_bytes=read.get(layer.path),
                written_bytes=written.get(layer.path),
            )
        )
        here = len(rows) - 1
        for path in inside[layer.path]:
            add(measured[path], here)

    if "" in measured:
        add(measured[""], None)
    else:
        for path in inside[""]:
            add(measured[path], None)
    return tuple(rows)


def operators(
    measurement: Measurement, graph: OpGraph, device: Device | None, *, by_module: bool = False
) -> tuple[OperatorRow, ...]:
    """The measured operators, calls with equal shapes together, longest CPU time first.

    by_module: calls in different modules apart. Without a device there are no bounds.

    FLOP and bytes come from the graph's operators of the same name and input shapes; where the shapes are told
    differently, from those of the same name in the same module when these all cost the same.
    """
    costs = _Costs(graph, measurement.operators)
    groups: dict[tuple[str, _Shapes, str], list[OperatorTime]] = defaultdict(list)
    for time in measurement.operators:
        groups[base_name(time.name), time.shapes, time.module if by_module else ""].append(time)
    total = math.fsum(time.cpu_s for time in measurement.operators)
    rows = []
    for (name, shapes, _), times in groups.items():
        found = [costs.of(time) for time in times]
        known = [cost for cost in found if cost is not None]
        wall, cpu = math.fsum(t.wall_s for t in times), math.fsum(t.cpu_s for t in times)
        flop = read = written = moved = bound = None
        limit: Limit = "unknown"
        if len(known) == len(found):
            flop, read, written = (
                math.fsum(getattr(cost, key) * time.calls for cost, time in zip(known, times, strict=True))
                for key in ("flop", "read_bytes", "written_bytes")
            )
            moved = read + written
            if device is not None:
                bound, limit = roof(device, known[0].category, known[0].dtype).least(flop, moved)
        rows.append(
            OperatorRow(
                name=name,
                shapes=shapes,
                modules=tuple(dict.fromkeys(time.module for time in times)),
                category=known[0].category if known else _category(graph, name),
                calls=sum(time.calls for time in times),
                wall_s=wall,
                cpu_s=cpu,
                time_s=cpu if measurement.environment.threads == 1 else wall,
                share=cpu / total if total > 0 else 0.0,
                flop=flop,
                moved_bytes=moved,
                bound_s=bound,
                limited_by=limit,
                read_bytes=read,
                written_bytes=written,
                dtype=known[0].dtype if known else None,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.cpu_s, row.name, row.shapes)))


def floor(rows: Iterable[OperatorRow]) -> Floor:
    """The operators' time split at this machine's roofline; the four parts sum to the operators' time."""
    parts = {"compute": 0.0, "memory": 0.0}
    excess = uncosted = 0.0
    for row in rows:
        if row.bound_s is None:
            uncosted += row.time_s
            continue
        least = min(row.bound_s, row.time_s)  # faster than the roofline: from cache, nothing is left above it
        excess += row.time_s - least
        if row.limited_by in parts:
            parts[row.limited_by] += least
    return Floor(parts["compute"], parts["memory"], excess, uncosted)


def category_shares(rows: Iterable[OperatorRow]) -> dict[str, float]:
    """Share of the operators' CPU time by category, largest first."""
    shares: dict[str, float] = defaultdict(float)
    for row in rows:
        shares[row.category] += row.share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of one call."""

    flop: float
    read_bytes: float
    written_bytes: float
    category: str
    dtype: str


class _Costs:
    """Costs of the graph's operators, found by input shapes, else by module. None: no cost rule knows the operator."""

    def __init__(self, graph: OpGraph, measured: Iterable[OperatorTime]) -> None:
        self._by_shapes: dict[tuple[str, _Shapes], list[_Cost | None]] = defaultdict(list)
        self._by_module: dict[tuple[str, str], list[_Cost | None]] = defaultdict(list)
        self._kinds = Counter((base_name(time.name), time.module) for time in measured)
        for op in graph.ops:
            name = base_name(op.name)
            cost = None
            if op.flop is not None:
                cost = _Cost(op.flop, op.read_bytes, op.written_bytes, op.category, arithmetic(graph, op))
            self._by_shapes[name, tuple(graph.shapes(op.inputs))].append(cost)
            self._by_module[name, op.module].append(cost)

    def of(self, time: OperatorTime) -> _Cost | None:
        """Cost of one call: the mean where equal shapes cost differently (a reduction over another axis)."""
        name = base_name(time.name)
        found = self._by_shapes.get((name, time.shapes))
        if found is None and self._kinds[name, time.module] == 1:  # one kind of call there: no mistaking it
            found = self._by_module.get((name, time.module), [])
            found = found if len(set(found)) == 1 else None
        known = [cost for cost in found or () if cost is not None]
        if not found or len(known) < len(found):
            return None
        keys = ("flop", "read_bytes", "written_bytes")
        flop, read, written = (math.fsum(getattr(c, key) for c in known) / len(known) for key in keys)
        return _Cost(flop, read, written, known[0].category, known[0].dtype)


def arithmetic(graph: OpGraph, op: Op) -> str:
    """The dtype that the arithmetic runs in: that of the first floating-point tensor, else the first tensor's."""
    dtypes = [graph.tensors[i].dtype for i in (*op.inputs, *op.outputs)]
    return next((d for d in dtypes if "float" in d), dtypes[0] if dtypes else "float32")


def _category(graph: OpGraph, name: str) -> str:
    return next((op.category for op in graph.ops if base_name(op.name) == name), "unknown")


def _nearest(path: str, measured: Mapping[str, object]) -> str:
    """The longest measured proper prefix of a module path; '' when there is none."""
    while path:
        path = path.rpartition(".")[0]
        if path in measured:
            break
    return path


class _Inclusive(NamedTuple):
    flop: dict[str, float]
    read_bytes: dict[str, float]
    written_bytes: dict[str, float]
    uncosted: dict[str, int]


def _inclusive(graph: OpGraph) -> _Inclusive:
    """FLOP, bytes and operators without a cost rule by module path, what is inside included.

    Forward only: layers are timed from entering to leaving their forward.
    """
    parts: tuple[dict[str, list[float]], ...] = tuple(defaultdict(list) for _ in range(3))
    uncosted: dict[str, int] = defaultdict(int)
    for op in graph.ops:
        if op.phase != "forward":
            continue
        for path in around(op.module):
            for sums, amount in zip(parts, (op.flop or 0.0, op.read_bytes, op.written_bytes), strict=True):
                sums[path].append(amount)
            uncosted[path] += op.flop is None
    flop, read, written = ({path: math.fsum(v) for path, v in sums.items()} for sums in parts)
    return _Inclusive(flop, read, written, dict(uncosted))


def around(path: str) -> Iterator[str]:
    """A module's path and those of the modules around it, the root '' last."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""
