"""What changed between two operator graphs: operators that came, went, or kept their place and changed their shape."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from gnomon.core.records import record
from gnomon.core.units import format_bytes, format_count
from gnomon.workload.graph import OpGraph, Phase
from gnomon.workload.text import table

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class OpChange:
    """All calls of one operator in one module and phase, before (a) and after (b); FLOP and bytes are sums.

    kind: 'added' and 'removed' when the other side has none; 'changed' when number, shapes, FLOP or bytes differ.
    shapes_a, shapes_b: shapes of the inputs of the first call that the other side does not have.
    """

    kind: Literal["added", "removed", "changed"]
    name: str
    module: str
    phase: Phase
    count_a: int
    count_b: int
    flop_a: float
    flop_b: float
    bytes_a: float
    bytes_b: float
    shapes_a: Shapes | None
    shapes_b: Shapes | None


@record("graph-diff", 1)
@dataclass(frozen=True, slots=True)
class GraphDiff:
    """Changes in the order of graph a, then what only b has; and both graphs' totals."""

    a: str
    b: str
    changes: tuple[OpChange, ...]
    flop_a: float
    flop_b: float
    bytes_a: float
    bytes_b: float

    @property
    def is_empty(self) -> bool:
        return not self.changes


@dataclass
class _Calls:
    count: int = 0
    flop: float = 0.0
    bytes: float = 0.0
    shapes: Counter[Shapes] = field(default_factory=Counter)


def diff(a: OpGraph, b: OpGraph) -> GraphDiff:
    """Compare by operator name, module and phase; the order of independent operators does not matter."""
    before, after = _gather(a), _gather(b)
    changes = []
    for key in dict.fromkeys([*before, *after]):
        x, y = before.get(key, _Calls()), after.get(key, _Calls())
        if x == y:
            continue
        kind: Literal["added", "removed", "changed"] = "added" if not x.count else "changed" if y.count else "removed"
        gone, come = next(iter(x.shapes - y.shapes), None), next(iter(y.shapes - x.shapes), None)
        changes.append(OpChange(kind, *key, x.count, y.count, x.flop, y.flop, x.bytes, y.bytes, gone, come))
    return GraphDiff(a.name, b.name, tuple(changes), a.flop, b.flop, a.moved_bytes, b.moved_bytes)


def render(difference: GraphDiff) -> str:
    """The diff as a table; one line says so when there is none."""
    if difference.is_empty:
        return f"{difference.a} and {difference.b} run the same operators"
    rows = []
    for c in difference.changes:
        sign = {"added": "+", "removed": "-", "changed": "~"}[c.kind]
        name = c.name.removeprefix("aten.").removesuffix(".default")
        rows.append(
            (
                f"{sign} {name} {c.module or '(root)'} {c.phase}",
                f"{c.count_a} -> {c.count_b}",
                f"{_shapes(c.shapes_a)} -> {_shapes(c.shapes_b)}" if c.shapes_a or c.shapes_b else "same",
                _change(format_count(c.flop_a, "FLOP"), format_count(c.flop_b, "FLOP")),
                _change(format_bytes(c.bytes_a), format_bytes(c.bytes_b)),
            )
        )
    flop = _change(format_count(difference.flop_a, "FLOP"), format_count(difference.flop_b, "FLOP"))
    moved = _change(format_bytes(difference.bytes_a), format_bytes(difference.bytes_b))
    total = f"{difference.a} -> {difference.b}: {flop}, {moved} moved"
    return "\n".join([total, "", *table(("operator", "calls", "shapes", "FLOP", "moved"), rows)])


def _gather(graph: OpGraph) -> dict[tuple[str, str, Phase], _Calls]:
    found: dict[tuple[str, str, Phase], _Calls] = {}
    for op in graph.ops:
        calls = found.setdefault((op.name, op.module, op.phase), _Calls())
        calls.count += 1
        calls.flop += op.flop or 0.0
        calls.bytes += op.moved_bytes
        calls.shapes[tuple(graph.shapes(op.inputs))] += 1
    return found


def _shapes(shapes: Shapes | None) -> str:
    return " ".join("x".join(map(str, shape)) or "scalar" for shape in shapes) if shapes else "."


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"
