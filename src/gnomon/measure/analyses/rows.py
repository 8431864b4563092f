"""Layers and kernels of a subject, whether it was measured here or imported: the rows that the analyses are made of.

Of a measurement, times come from the run of their own level. Of an imported trace they come from its spans, per step
(a span of the model level), and whatever its tool put into the attributes: FLOP, bytes, occupancy.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.core.units import format_seconds
from gnomon.measure.analyses import join
from gnomon.measure.analyses.roofline import Place, Roof, place, roof
from gnomon.measure.analyses.subject import NO_DEVICE, NO_GRAPH, Subject
from gnomon.measure.record import Span
from gnomon.workload.graph import OpGraph

# what tools call these numbers: ours first, then those of XSP and nvprof
_FLOP = ("flop", "flops", "flop_count", "flop_count_sp")
_READ = ("read_bytes", "dram_read_bytes")
_WRITTEN = ("written_bytes", "dram_write_bytes")
_ALLOCATED = ("allocated_bytes", "alloc_bytes", "allocation_bytes")
_OCCUPANCY = ("occupancy", "achieved_occupancy")
_SHAPE = ("output_shape", "shape")
_TYPE = ("type", "layer_type")
_PATH = ("module", "path")
_INDEX = ("index", "layer_sequence_index")
_NO_OPS = OpGraph("none", "inference", (), (), 0)

MODELLED = "FLOP and bytes are modelled from the operator graph (each input read once, each output written once)"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; the root, index 0, is none of them. parent: index of the layer around it, 0 for the root.

    latency_s: wall seconds per step with all that is inside; cpu_s the same on the CPU clock; self_s without what is
    inside (CPU time where it was measured, else wall time). flop, bytes: of the forward pass, with all that is inside.
    """

    index: int
    path: str
    type: str
    depth: int
    parent: int
    calls: float
    shape: tuple[int, ...] | None
    latency_s: float
    cpu_s: float | None
    self_s: float
    flop: float | None
    read_bytes: float | None
    written_bytes: float | None
    allocated_bytes: float | None
    uncosted: int = 0

    @property
    def moved_bytes(self) -> float | None:
        return _sum(self.read_bytes, self.written_bytes)


@dataclass(frozen=True, slots=True)
class Kernel:
    """All calls of one kernel (on a CPU: one operator) with equal shapes in one layer. Amounts are of all calls of a
    step. seconds: what rates are taken from: the device's time, on a CPU with one thread the CPU clock. occupancy:
    weighted by duration.
    """

    name: str
    what: str  # "kernel" or "operator"
    layer: str
    shapes: str
    calls: float
    seconds: float
    flop: float | None
    read_bytes: float | None
    written_bytes: float | None
    occupancy: float | None
    category: str
    dtype: str

    @property
    def moved_bytes(self) -> float | None:
        return _sum(self.read_bytes, self.written_bytes)


def steps(subject: Subject) -> int:
    """How many steps the spans hold: spans of the model level, else one."""
    return max(sum(span.level == "model" for span in subject.spans), 1)


def model_s(subject: Subject) -> float | None:
    """Wall seconds of a step: the untraced median of a measurement, else the mean over a trace's steps."""
    if subject.measurement is not None and "p50" in subject.measurement.latency:
        return subject.measurement.latency["p50"].value
    whole = [span.wall_s for span in subject.spans if span.level == "model"]
    if not whole:
        whole = [span.wall_s for span in subject.spans if span.parent is None and not on_device(span)]
        return math.fsum(whole) if whole else None
    return math.fsum(whole) / len(whole)


def why_no_layers(subject: Subject) -> str:
    """Why `layers` is empty."""
    if subject.trace is not None:
        return _empty(subject, "layer")
    said = _unavailable(subject, "layer")
    return said or "the layer level was not measured: gnomon run TASK --level layer"


def why_no_kernels(subject: Subject) -> str:
    """Why `kernels` is empty."""
    if subject.trace is not None:
        return _empty(subject, "kernel or operator")
    said = _unavailable(subject, "operator")
    return said or "neither operators nor kernels were measured: gnomon run TASK --level operator (or kernel)"


def _empty(subject: Subject, level: str) -> str:
    if not subject.spans:
        return f"the trace {subject.name!r} holds no spans: it was cut off, or nothing in it was understood"
    found = ", ".join(sorted({span.level for span in subject.spans}))
    return f"the trace {subject.name!r} holds no spans of the {level} level; it holds: {found}"


def _unavailable(subject: Subject, level: str) -> str | None:
    measurement = subject.measurement
    if measurement is None:
        return subject.why_no("measurement", "nothing was measured")
    return next((w for w in measurement.warnings if w.startswith(f"level {level!r} is not available")), None)


def layers(subject: Subject) -> tuple[Layer, ...]:
    """All layers but the root, in the order of the model; empty when none were measured."""
    if subject.measurement is not None:
        return _measured_layers(subject)
    return _traced_layers(subject)


def _measured_layers(subject: Subject) -> tuple[Layer, ...]:
    assert subject.measurement is not None
    rows = join.layers(subject.measurement, subject.graph or _NO_OPS)
    allocated = _allocated(subject.graph) if subject.graph is not None and subject.graph.storages else {}
    first = 0 if rows and not rows[0].path else 1  # position of a row + first = its index
    return tuple(
        Layer(
            index=i + first,
            path=row.path,
            type=row.type,
            depth=row.depth,
            parent=row.parent + first if row.parent is not None else 0,
            calls=row.calls,
            shape=row.output_shape,
            latency_s=row.wall_s,
            cpu_s=row.cpu_s,
            self_s=row.self_cpu_s,
            flop=row.flop,
            read_bytes=row.read_bytes,
            written_bytes=row.written_bytes,
            allocated_bytes=allocated.get(row.path, 0.0) if allocated else None,
            uncosted=row.uncosted,
        )
        for i, row in enumerate(rows)
        if row.path
    )


def _allocated(graph: OpGraph) -> dict[str, float]:
    """Bytes that the operators of a module allocate in the forward pass, what is inside included."""
    sums: dict[str, float] = defaultdict(float)
    for storage in graph.storages:
        if storage.born >= 0 and graph.ops[storage.born].phase == "forward":
            for path in join.around(graph.ops[storage.born].module):
                sums[path] += storage.bytes
    return sums


def _traced_layers(subject: Subject) -> tuple[Layer, ...]:
    spans, n = subject.spans, steps(subject)
    inside: dict[int, list[Span]] = defaultdict(list)
    above: dict[int, int] = {}
    for i, span in enumerate(spans):
        if span.level == "layer" and not _is_root(span):
            parent = _ancestor(spans, i, "layer")
            if parent is not None and not _is_root(spans[parent]):
                above[i] = parent
                inside[parent].append(span)
    members: dict[str, list[int]] = {}
    for i in sorted(range(len(spans)), key=lambda i: (spans[i].start_s, -spans[i].wall_s, i)):
        if spans[i].level == "layer" and not _is_root(spans[i]):
            members.setdefault(_path(spans[i]), []).append(i)
    index = {path: i for i, path in enumerate(members, start=1)}
    depth: dict[str, int] = {}
    found = []
    for path, mine in members.items():
        parent = above.get(mine[0])
        around = _path(spans[parent]) if parent is not None else ""
        around = "" if around == path or around not in depth else around
        depth[path] = depth[around] + 1 if around else 1
        attributes = [spans[i].attributes for i in mine]
        cpu = [spans[i].cpu_s for i in mine]
        shape = _first(attributes[0], _SHAPE)
        outer = [i for i in mine if above.get(i) is None or _path(spans[above[i]]) != path]  # a layer that calls itself
        found.append(
            Layer(
                index=index[path],
                path=path,
                type=str(_first(attributes[0], _TYPE) or "not told"),
                depth=depth[path],
                parent=index.get(around, 0),
                calls=len(mine) / n,
                shape=tuple(int(x) for x in shape) if isinstance(shape, list | tuple) and _whole(shape) else None,
                latency_s=math.fsum(spans[i].wall_s for i in outer) / n,
                cpu_s=math.fsum(c for c in cpu if c is not None) / n if None not in cpu else None,
                self_s=math.fsum(spans[i].wall_s - _covered(spans[i], inside[i]) for i in mine) / n,
                flop=_total(attributes, _FLOP, n),
                read_bytes=_total(attributes, _READ, n),
                written_bytes=_total(attributes, _WRITTEN, n),
                allocated_bytes=_total(attributes, _ALLOCATED, n),
            )
        )
    return tuple(found)


def overlaps(subject: Subject) -> str:
    """A note when layers side by side overlap in time, '' when none do; only a trace can tell."""
    if subject.trace is None:
        return ""
    beside: dict[int | None, list[Span]] = defaultdict(list)
    for i, span in enumerate(subject.spans):
        if span.level == "layer":
            beside[_ancestor(subject.spans, i, "layer")].append(span)
    crossing, lost = 0, 0.0
    for family in beside.values():
        ordered = sorted(family, key=lambda s: s.start_s)
        end = -math.inf
        for span in ordered:
            overlap = min(end, span.start_s + span.wall_s) - span.start_s
            if overlap > 1e-9:
                crossing, lost = crossing + 1, lost + overlap
            end = max(end, span.start_s + span.wall_s)
    if not crossing:
        return ""
    return (
        f"{crossing} layers start before one beside them has ended ({format_seconds(lost)} in all): they ran at the "
        "same time, so times of layers add up to more than their parent's"
    )


def kernels(subject: Subject) -> tuple[Kernel, ...]:
    """Kernels of the device, longest first; operators where there are none (a CPU); empty when neither was seen."""
    if any(on_device(span) for span in subject.spans):
        found = _traced_kernels(subject, "kernel")
    elif subject.measurement is not None and subject.measurement.operators:
        found = _measured_operators(subject)
    else:
        found = _traced_kernels(subject, "operator")
    return tuple(sorted(found, key=lambda k: (-k.seconds, k.name, k.layer, k.shapes)))


def _measured_operators(subject: Subject) -> list[Kernel]:
    assert subject.measurement is not None
    rows = join.operators(subject.measurement, subject.graph or _NO_OPS, None, by_module=True)
    return [
        Kernel(
            name=row.name,
            what="operator",
            layer=row.modules[0],
            shapes=told_shapes(row.shapes),
            calls=row.calls,
            seconds=row.time_s,
            flop=row.flop,
            read_bytes=row.read_bytes,
            written_bytes=row.written_bytes,
            occupancy=None,
            category=row.category,
            dtype=row.dtype or "float32",
        )
        for row in rows
    ]


def _traced_kernels(subject: Subject, level: str) -> list[Kernel]:
    spans, n = subject.spans, steps(subject)
    groups: dict[tuple[str, str, str], list[Span]] = defaultdict(list)
    nested = {span.parent for span in spans if span.level == level}
    for i, span in enumerate(spans):
        if not (on_device(span) if level == "kernel" else span.level == level and i not in nested):
            continue  # among operators, a composite one is its parts
        name = span.name if level == "kernel" else join.base_name(span.name)
        shapes: Any = span.attributes.get("shapes")
        groups[name, layer_of(spans, i), told_shapes(shapes) if _are_shapes(shapes) else ""].append(span)
    found = []
    for (name, layer, shapes), mine in groups.items():
        attributes = [span.attributes for span in mine]
        seconds = math.fsum(span.wall_s for span in mine)
        occupancies = [_number(a, _OCCUPANCY) for a in attributes]
        weighted = [o * s.wall_s for o, s in zip(occupancies, mine, strict=True) if o is not None]
        found.append(
            Kernel(
                name=name,
                what=level,
                layer=layer,
                shapes=shapes,
                calls=len(mine) / n,
                seconds=seconds / n,
                flop=_total(attributes, _FLOP, n),
                read_bytes=_total(attributes, _READ, n),
                written_bytes=_total(attributes, _WRITTEN, n),
                occupancy=math.fsum(weighted) / seconds if seconds and len(weighted) == len(mine) else None,
                category=str(attributes[0].get("category", "matmul")),
                dtype=str(attributes[0].get("dtype", "float32")),
            )
        )
    return found


def on_device(span: Span) -> bool:
    """A kernel of a device, and no call of a library on the CPU, which is inside its operator."""
    return span.level == "kernel" and "library" not in span.attributes


def layer_of(spans: Sequence[Span], index: int) -> str:
    """Path of the layer that a span belongs to: its own word for it, else the nearest layer around it, else ''."""
    here: int | None = index
    while here is not None:
        span = spans[here]
        if span.level == "layer":
            return "" if _is_root(span) else _path(span)
        if span.level == "operator" and "module" in span.attributes:
            return str(span.attributes["module"])
        here = span.parent
    return ""


def main_dtype(graph: OpGraph | None) -> str:
    """The dtype that most of a graph's FLOP run in."""
    flop: dict[str, float] = defaultdict(float)
    for op in graph.ops if graph is not None else ():
        flop[join.arithmetic(graph, op)] += op.flop or 0.0  # type: ignore[arg-type]
    return max(flop, key=lambda dtype: flop[dtype], default="float32")


def under(subject: Subject, category: str = "matmul", dtype: str | None = None) -> Roof | None:
    """The roof over one kind of work; of a layer or a model it is that of matrix products, the highest there is."""
    if subject.device is None:
        return None
    return roof(subject.device, category, dtype or main_dtype(subject.graph))


def placed(kernel: Kernel, subject: Subject) -> Place:
    """Where a kernel lies under the device's roof."""
    return place(kernel.flop, kernel.moved_bytes, kernel.seconds, under(subject, kernel.category, kernel.dtype))


def work_notes(subject: Subject, amounts: Iterable[float | None]) -> list[str]:
    """Where FLOP and bytes come from, and why some are missing."""
    known = [amount for amount in amounts if amount is not None]
    if subject.measurement is None:
        return [] if known else ["the spans carry no FLOP or byte counters (flop_count_sp, dram_read_bytes, ...)"]
    if subject.graph is None:
        return [subject.why_no("graph", NO_GRAPH)]
    return [MODELLED, _counters(subject)]


def roof_notes(subject: Subject, places: Iterable[Place]) -> list[str]:
    """Which roof was used, what it flags, or why there is none."""
    if subject.device is None:
        return [subject.why_no("device", NO_DEVICE)]
    flags = [p.flag for p in places if p.flag]
    counted = [f"{flags.count(flag)} of the rows are {flag}" for flag in dict.fromkeys(flags)]
    return [f"roof: {subject.device.name}", *counted]


def _counters(subject: Subject) -> str:
    assert subject.measurement is not None
    said = [c.unavailable for c in subject.measurement.counters if c.source == "perf" and c.unavailable]
    if said:
        return f"no memory counters to compare with: {said[0]}"
    return "" if subject.measurement.counters else "no memory counters were asked for (gnomon run --level hardware)"


def told_shapes(shapes: Iterable[Iterable[int]]) -> str:
    """'8x64, 64x64'."""
    return ", ".join("x".join(map(str, shape)) or "()" for shape in shapes)


def told_shape(shape: Iterable[int] | None) -> str | None:
    return None if shape is None else "x".join(map(str, shape)) or "()"


def _are_shapes(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, list | tuple) for one in value)


def _whole(value: Sequence[Any]) -> bool:
    return all(isinstance(x, int) for x in value)


def _is_root(span: Span) -> bool:
    """The model itself among its layers: index 0 of XSP, the empty path of ours."""
    return _number(span.attributes, _INDEX) == 0 or span.attributes.get("module") == ""


def _path(span: Span) -> str:
    return str(_first(span.attributes, _PATH) or span.name)


def _ancestor(spans: Sequence[Span], index: int, level: str) -> int | None:
    here = spans[index].parent
    while here is not None and spans[here].level != level:
        here = spans[here].parent
    return here


def _covered(span: Span, inside: Sequence[Span]) -> float:
    """Seconds of a span during which at least one of those inside it ran."""
    total, reached, end = 0.0, span.start_s, span.start_s + span.wall_s
    for child in sorted(inside, key=lambda s: s.start_s):
        start, stop = max(child.start_s, reached), min(child.start_s + child.wall_s, end)
        if stop > start:
            total += stop - start
            reached = stop
    return min(total, span.wall_s)


def _first(attributes: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((attributes[name] for name in names if name in attributes), None)


def _number(attributes: Mapping[str, Any], names: Sequence[str]) -> float | None:
    value = _first(attributes, names)
    if isinstance(value, str):  # tags of a tracer are often text
        try:
            value = float(value)
        except ValueError:
            return None
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _total(attributes: Sequence[Mapping[str, Any]], names: Sequence[str], n: int) -> float | None:
    """Sum per step; None unless every span tells it."""
    values = [_number(one, names) for one in attributes]
    known = [value for value in values if value is not None]
    return math.fsum(known) / n if known and len(known) == len(values) else None


def _sum(a: float | None, b: float | None) -> float | None:
    return a + b if a is not None and b is not None else None
