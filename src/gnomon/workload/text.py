"""An operator graph as text: what a person reads in a terminal."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from gnomon.core.errors import UsageError
from gnomon.core.units import format_bytes, format_count
from gnomon.workload.graph import Op, OpGraph

By = Literal["module", "operator", "list"]


@dataclass
class _Row:
    label: str
    ops: list[Op] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        flop = sum(op.flop or 0.0 for op in self.ops)
        moved = sum(op.moved_bytes for op in self.ops)
        unknown = sum(op.flop is None for op in self.ops)
        label = self.label + (f"  ({unknown} unknown)" if unknown else "")
        return label, str(len(self.ops)), format_count(flop, "FLOP"), format_bytes(moved), _intensity(flop, moved)


def render(graph: OpGraph, by: By = "module") -> str:
    """A table of the graph: sums per module (with all that is inside it), sums per operator, or every operator.

    Repeated siblings (the layers of a stack) that cost the same are shown once with their number and the cost of one.
    Raises UsageError for another `by`.
    """
    if by not in ("module", "operator", "list"):
        raise UsageError(f"a graph is shown by 'module', 'operator' or 'list'; got {by!r}")
    makers: dict[str, Callable[[OpGraph], list[str]]] = {"module": _modules, "operator": _operators, "list": _list}
    return "\n".join([*_head(graph), "", *makers[by](graph)])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Aligned columns: the first to the left, the others to the right; trailing blanks cut."""
    listed = [head, *rows]
    widths = [max(len(row[i]) for row in listed) for i in range(len(head))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in listed
    ]


def _head(graph: OpGraph) -> list[str]:
    lines = [
        f"{graph.name}: {graph.mode}, {len(graph.ops)} operators, {format_count(graph.parameters)} parameters, "
        f"{format_count(graph.flop, 'FLOP')}, {format_bytes(graph.moved_bytes)} moved"
    ]
    if graph.unknown:
        names = ", ".join(f"{name} x{count}" for name, count in graph.unknown.items())
        lines.append(f"without a cost rule, not in the FLOP above: {names}")
    return lines


def _intensity(flop: float, moved: float) -> str:
    return f"{flop / moved:.3g}" if moved else "-"


_COLUMNS = ("calls", "FLOP", "moved", "FLOP/B")


def _modules(graph: OpGraph) -> list[str]:
    own: dict[str, list[Op]] = {}
    types: dict[str, str] = {}
    children: dict[str, list[str]] = {}
    for op in graph.ops:
        own.setdefault(op.module, []).append(op)
        types[op.module] = op.module_type
        path = op.module
        while path:
            parent = path.rpartition(".")[0]
            siblings = children.setdefault(parent, [])
            if path in siblings:
                break
            siblings.append(path)
            path = parent

    def inside(path: str) -> list[Op]:
        return own.get(path, []) + [op for child in children.get(path, []) for op in inside(child)]

    rows: list[tuple[str, ...]] = []

    def walk(path: str, depth: int, twins: int) -> None:
        name = path.rpartition(".")[2] or types.get(path) or "(root)"
        kind = f" {types[path]}" if path and types.get(path) else ""
        times = f" x{twins}, each" if twins > 1 else ""
        rows.append(_Row(f"{'  ' * depth}{name}{kind}{times}", inside(path)).cells())
        groups: dict[tuple[object, ...], list[str]] = {}
        for child in sorted(children.get(path, []), key=_natural):
            cost = tuple((op.name, op.flop, op.moved_bytes) for op in inside(child))
            numbered = child.rpartition(".")[2].isdecimal()
            groups.setdefault((types.get(child), cost) if numbered else (child,), []).append(child)
        for same in groups.values():
            walk(same[0], depth + 1, len(same))

    walk("", 0, 1)
    return table(("module", *_COLUMNS), rows)


def _natural(path: str) -> tuple[bool, int, str]:
    last = path.rpartition(".")[2]
    return (last.isdecimal(), int(last) if last.isdecimal() else 0, "" if last.isdecimal() else last)


def _operators(graph: OpGraph) -> list[str]:
    rows: dict[str, _Row] = {}
    for op in graph.ops:
        label = f"{op.name.removeprefix('aten.').removesuffix('.default')} [{op.category}]"
        rows.setdefault(label, _Row(label)).ops.append(op)
    ordered = sorted(
        rows.values(), key=lambda r: (-sum(o.flop or 0.0 for o in r.ops), -sum(o.moved_bytes for o in r.ops))
    )
    return table(("operator", *_COLUMNS), [row.cells() for row in ordered])


def _list(graph: OpGraph) -> list[str]:
    def shapes(indices: tuple[int, ...]) -> str:
        return " ".join("x".join(map(str, shape)) or "scalar" for shape in graph.shapes(indices))

    rows = [
        (
            f"{i} {op.name.removeprefix('aten.').removesuffix('.default')} {op.module or '(root)'}",
            op.phase,
            f"{shapes(op.inputs)} -> {shapes(op.outputs)}",
            "unknown" if op.flop is None else format_count(op.flop, "FLOP"),
            format_bytes(op.moved_bytes),
        )
        for i, op in enumerate(graph.ops)
    ]
    return table(("operator", "phase", "shapes", "FLOP", "moved"), rows)
