"""The same step at another batch size without capturing it again: exact, or refused.

Sizes, FLOP and bytes of most models are straight lines over the batch. Three captures decide: the outer two give the
line, and the graph that the line gives for the middle one must equal its capture in every field.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from fractions import Fraction
from typing import Any

from gnomon.workload.graph import Op, OpGraph, Storage, TensorInfo

_PARTS = (Op, TensorInfo, Storage, OpGraph)


class _NotALine(Exception):
    """Two graphs differ in more than numbers, or a size would not be whole."""


def at_batches(batches: Sequence[int], capture: Callable[[int], OpGraph]) -> dict[int, OpGraph]:
    """The graph of every batch size; `capture` is called for as few of them as prove that the others follow.

    A batch of one is often special (an axis of size one needs no copy), so the smallest is left out at a second try.
    """
    wanted = sorted(set(batches))
    found: dict[int, OpGraph] = {}

    def captured(batch: int) -> OpGraph:
        if batch not in found:
            found[batch] = capture(batch)
        return found[batch]

    for ends in (wanted, wanted[1:]):
        if len(ends) <= 3:
            break
        first, middle, last = ends[0], ends[len(ends) // 2], ends[-1]
        line = _Line(first, captured(first), last, captured(last))
        if line.holds(middle, captured(middle)):
            try:
                between = {batch: line.at(batch) for batch in ends}
            except _NotALine:
                break
            return {batch: found.get(batch) or between.get(batch) or captured(batch) for batch in wanted}
    return {batch: captured(batch) for batch in wanted}


class _Line:
    def __init__(self, low: int, at_low: OpGraph, high: int, at_high: OpGraph) -> None:
        self._low, self._high, self._ends = low, high, (at_low, at_high)

    def holds(self, batch: int, graph: OpGraph) -> bool:
        try:
            return self.at(batch) == graph
        except _NotALine:
            return False

    def at(self, batch: int) -> OpGraph:
        """The graph at a batch between the ends. Raises _NotALine."""
        share = Fraction(batch - self._low, self._high - self._low)
        graph = _between(*self._ends, share)
        assert isinstance(graph, OpGraph)
        return graph


def _between(a: Any, b: Any, share: Fraction) -> Any:
    """`a` where both are equal, the number between them, or the same for what they consist of."""
    if isinstance(a, int | float) and not isinstance(a, bool) and type(a) is type(b):
        if a == b:
            return a
        value = Fraction(a) + (Fraction(b) - Fraction(a)) * share
        if isinstance(a, float):
            return float(value)
        if value.denominator != 1:
            raise _NotALine
        return int(value)
    if isinstance(a, _PARTS) and type(a) is type(b):
        if not isinstance(a, OpGraph) and a == b:
            return a
        return type(a)(*(_between(getattr(a, f.name), getattr(b, f.name), share) for f in fields(a)))
    if isinstance(a, tuple | list) and type(a) is type(b) and len(a) == len(b):
        return type(a)(_between(x, y, share) for x, y in zip(a, b, strict=True))
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return {key: _between(a[key], b[key], share) for key in a}
    if a != b:
        raise _NotALine
    return a
