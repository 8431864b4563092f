"""One timeline out of the runs of all levels, in which every time is that of the run whose deepest level it belongs to.

A run that looks deep is slow, so its times of the levels above are wrong; the run that has those right knows nothing of
what lies below (Li et al. 2020, XSP). The runs made the same call, so their spans are found again in each other: a
module by its path and how often it was called before inside the same parent, an operator by its name and count. A span
is then as long as in its own run, less what tracing cost inside it, and lies inside its parent where the deepest run
that knows both has it: the time that a parent has left goes between its children as the gaps did there.

What does not fit is told, not hidden: children that took longer in their run than their parent in its own are shrunk to
fit, and `attributes['shrunk']` is the factor. `attributes['run']` names the run of the time, `traced_s` is the time as
traced, over the typical calls where there are several. Kernels of a device run behind the host: they keep their length
and their order on each stream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from gnomon.measure.levels.trace import Cost, Times
from gnomon.measure.record import SPAN_LEVELS, Span, SpanLevel

_ROUNDING = 1e-9  # sums of times that are equal but for their last bits


class Run(NamedTuple):
    """The spans of one call of a run, with parents. costs: of tracing one span of a level, where it is taken out.

    times: of each span over several calls, where there are such; else a span's own times are taken.
    """

    level: SpanLevel
    spans: Sequence[Span]
    costs: Mapping[SpanLevel, Cost]
    times: Sequence[Times] = ()


class Merged(NamedTuple):
    """The timeline, parents before children. shrunk: how many spans had to be made shorter to fit."""

    spans: tuple[Span, ...]
    shrunk: int


@dataclass(slots=True)
class _Node:
    """A span of the merged tree. raw: where each run that saw it has it, begin and end in that run's seconds."""

    span: Span
    run: SpanLevel
    traced_s: float
    wall_s: float
    cpu_s: float | None
    raw: dict[SpanLevel, tuple[float, float]]
    children: dict[tuple[str, int], "_Node"] = field(default_factory=dict)
    kernels: list["_Node"] = field(default_factory=list)  # of a device: launched here, run elsewhere


def merge(runs: Sequence[Run]) -> Merged:
    """The runs' calls as one. Each run holds the spans of every level above its own that was measured.

    runs: in any order; the shallowest gives the roots. Raises ValueError for no runs and for two of one level.
    """
    ordered = sorted(runs, key=lambda run: SPAN_LEVELS.index(run.level))
    levels = [run.level for run in ordered]
    if not runs or len(set(levels)) < len(levels):
        raise ValueError(f"wanted one run per level, at least one; got {levels}")
    top: dict[tuple[str, int], _Node] = {}  # by what the span is and how many of these came before
    for run in ordered:
        _join(top, run, has_operators=run.level == "kernel" and "operator" in levels)
    spans: list[Span] = []
    shrunk = 0
    at = 0.0
    for root in top.values():
        is_device = root.span.attributes.get("device")
        start = root.raw[root.run][0] if is_device else max(root.raw[root.run][0], at)
        shrunk += _place(root, start, 1.0, None, spans, levels)
        at = at if is_device else start + root.wall_s
    return Merged(tuple(_streams(spans)), shrunk)


def _join(top: dict[tuple[str, int], _Node], run: Run, has_operators: bool) -> None:
    """Find each span of a run in the tree, or put it there with this run's time.

    has_operators: another run has the operators; those that it does not know (a composite operator around it, or parts
    inside it, which only the profiler tells apart) are passed through to what is around them.
    """
    times = run.times or [Times(span.wall_s, span.cpu_s) for span in run.spans]
    wall = corrected([one.wall_s for one in times], run)
    cpu = corrected([one.cpu_s or 0.0 for one in times], run)
    nodes: list[_Node | None] = [None] * len(run.spans)
    seen: dict[tuple[int, str], int] = {}
    model = next((found for root in top.values() if (found := _find(root, "model")) is not None), None)
    for i in _parents_first(run.spans):
        span = run.spans[i]
        above = nodes[span.parent] if span.parent is not None else None
        is_operator = has_operators and span.level == "operator"
        if is_operator and above is not None and above.span.level == "operator":
            nodes[i] = above
            continue
        key = _key(span)
        count = seen.get((id(above), key), 0)
        siblings = above.children if above is not None else top
        if span.parent is None and span.level == "model" and model is not None:
            node: _Node | None = model  # the application's call of the model, or the root of a shallower run
        else:
            node = siblings.get((key, count))
        if node is None and is_operator:
            nodes[i] = above
            continue
        seen[id(above), key] = count + 1
        if node is None:
            cpu_s = None if span.cpu_s is None else cpu[i]
            node = _Node(span, run.level, times[i].wall_s, wall[i], cpu_s, {})
            if not span.attributes.get("device"):
                siblings[key, count] = node
            elif above is not None:
                above.kernels.append(node)
            else:  # nobody is known to have launched it: a root of its own
                top[f"device {key}", count] = node
        elif run.level == "model" and span.level == "model":  # the application's call was not the untraced one
            node.span, node.run = span, run.level
            node.traced_s, node.wall_s, node.cpu_s = times[i].wall_s, times[i].wall_s, times[i].cpu_s
        node.raw[run.level] = (span.start_s, span.start_s + span.wall_s)
        nodes[i] = node


def _find(node: _Node, level: SpanLevel) -> _Node | None:
    if node.span.level == level:
        return node
    return next((found for child in node.children.values() if (found := _find(child, level)) is not None), None)


def _key(span: Span) -> str:
    if span.level == "layer":
        return f"layer {span.attributes.get('module', span.name)}"
    if span.level == "operator":
        # 'aten::addmm' of the profiler is 'aten.addmm.default' of the dispatcher
        return "operator " + ".".join(span.name.replace("::", ".").split(".")[:2])
    if span.level == "model":
        return "model"  # by the task's name in one run, by 'run' in another
    return f"{span.level} {span.name}"


def _parents_first(spans: Sequence[Span]) -> list[int]:
    """Indices with every parent before its children, and siblings in order of time."""
    children: dict[int | None, list[int]] = {}
    for i, span in enumerate(spans):
        children.setdefault(span.parent, []).append(i)
    order: list[int] = []
    pending = sorted(children.get(None, ()), key=lambda i: spans[i].start_s, reverse=True)
    while pending:
        i = pending.pop()
        order.append(i)
        pending += sorted(children.get(i, ()), key=lambda i: spans[i].start_s, reverse=True)
    return order


def corrected(times: Sequence[float], run: Run) -> list[float]:
    """Times of a run's spans without what tracing them cost: no time is negative, no parent below its children's sum.

    As `levels.layer` corrects its table: a span's own time loses what reading its own clocks cost inside it and what
    its children's tracing cost around them.
    """
    spans = run.spans
    own, extra = list(times), [0.0] * len(spans)
    for i, span in enumerate(spans):
        cost = run.costs.get(span.level)
        if cost is not None:
            extra[i] += cost.inside_s
            if span.parent is not None:
                extra[span.parent] += max(cost.total_s - cost.inside_s, 0.0)
        if span.parent is not None and not span.attributes.get("device"):
            own[span.parent] -= times[i]
    result = [max(mine - more, 0.0) for mine, more in zip(own, extra, strict=True)]
    for i in reversed(_parents_first(spans)):
        parent = spans[i].parent
        if parent is not None and not spans[i].attributes.get("device"):
            result[parent] += result[i]
    return result


def _place(
    node: _Node, start: float, factor: float, parent: int | None, out: list[Span], levels: Sequence[SpanLevel]
) -> int:
    """Append a node's span and all below it to `out`; returns how many were shrunk. factor: what shrank the node."""
    index, wall = len(out), node.wall_s * factor
    attributes: dict[str, Any] = {**node.span.attributes, "run": node.run, "traced_s": node.traced_s}
    if factor < 1:
        attributes["shrunk"] = factor
    cpu = None if node.cpu_s is None else node.cpu_s * factor
    out.append(replace(node.span, start_s=start, wall_s=wall, cpu_s=cpu, parent=parent, attributes=attributes))
    shrunk = int(factor < 1)
    children = list(node.children.values())
    # the deepest run that saw this span and inside it knows the order of all its children
    seen_in = [level for level in levels if level in node.raw and any(level in child.raw for child in children)]
    if seen_in:
        shrunk += _place_children(node, children, seen_in[-1], start, wall, index, out, levels)
    for kernel in node.kernels:
        launched = kernel.raw[kernel.run][0] - node.raw[kernel.run][0]
        shrunk += _place(kernel, start + launched, 1.0, index, out, levels)
    return shrunk


def _place_children(
    node: _Node,
    children: list[_Node],
    run: SpanLevel,
    start: float,
    wall: float,
    index: int,
    out: list[Span],
    levels: Sequence[SpanLevel],
) -> int:
    inside = [child for child in children if run in child.raw]
    inside.sort(key=lambda child: child.raw[run])
    inside += [child for child in children if run not in child.raw]  # not in that call: at the end
    total = sum(child.wall_s for child in inside)
    factor = 1.0 if total <= wall * (1 + _ROUNDING) else wall / total
    left = max(wall - total * factor, 0.0)
    gaps, at = [], node.raw[run][0]
    for child in inside:
        begin, end = child.raw.get(run, (at, at))
        gaps.append(max(begin - at, 0.0))
        at = max(at, end)
    all_gaps = sum(gaps) + max(node.raw[run][1] - at, 0.0)
    stretch = left / all_gaps if all_gaps > 0 else 0.0
    shrunk, at = 0, start
    for gap, child in zip(gaps, inside, strict=True):
        at += gap * stretch
        shrunk += _place(child, min(at, start + wall), factor, index, out, levels)
        at += child.wall_s * factor
    return shrunk


def _streams(spans: Sequence[Span]) -> list[Span]:
    """Kernels of one stream one after the other, in the order in which they were launched."""
    free: dict[Any, float] = {}
    placed = list(spans)
    device = [i for i, span in enumerate(spans) if span.attributes.get("device")]
    for i in sorted(device, key=lambda i: spans[i].attributes.get("launched_s", spans[i].start_s)):
        stream = spans[i].attributes.get("stream")
        start = max(spans[i].start_s, free.get(stream, 0.0))
        placed[i] = replace(spans[i], start_s=start)
        free[stream] = start + spans[i].wall_s
    return placed


def adopt_parents(spans: Sequence[Span], serial: Sequence[Span]) -> tuple[tuple[Span, ...], int]:
    """Times of one run, parents of another that made the same call with its launches serialised (and slow).

    A span is found again by its level, name and how many of these came before. Returns the spans, and how many of them
    the other run does not have: those keep their parents.
    """
    serial_keys, keys = _counted(serial), _counted(spans)
    twins = dict(zip(serial_keys, serial, strict=True))
    places = {key: i for i, key in enumerate(keys)}
    lost, adopted = 0, []
    for key, span in zip(keys, spans, strict=True):
        twin = twins.get(key)
        parent = None if twin is None or twin.parent is None else places.get(serial_keys[twin.parent])
        if twin is None or (twin.parent is not None and parent is None):
            lost += 1
            adopted.append(span)
        else:
            adopted.append(replace(span, parent=parent))
    return tuple(adopted), lost


def _counted(spans: Sequence[Span]) -> list[tuple[str, str, int]]:
    """Level, name, and how many of these came before, for each span."""
    counts: dict[tuple[str, str], int] = {}
    keys: list[tuple[str, str, int]] = []
    for span in spans:
        n = counts[span.level, span.name] = counts.get((span.level, span.name), -1) + 1
        keys.append((span.level, span.name, n))
    return keys
