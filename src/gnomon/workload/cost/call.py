"""A call of an operator as a rule sees it, and what a rule says of it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gnomon.workload.graph import Category


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor as a cost rule sees it. bytes: what it takes in memory, repeated (stride 0) elements counted once.

    nonzeros: stored values of a sparse matrix, None for a dense tensor.
    """

    shape: tuple[int, ...]
    bytes: int
    item_bytes: int
    nonzeros: int | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: arguments by their name in the operator's schema (an Operand, a list of them, or a plain value).

    name: 'aten.mm' without the overload. written: names of the arguments that are written in place.
    """

    name: str
    arguments: Mapping[str, Any]
    outputs: tuple[Operand, ...]
    written: frozenset[str] = frozenset()

    def operand(self, *names: str) -> Operand:
        """The first argument of these names that is a tensor."""
        for name in names:
            if isinstance(value := self.arguments.get(name), Operand):
                return value
        raise KeyError(f"{self.name} has no tensor argument {' or '.join(names)}; it has {', '.join(self.arguments)}")

    def has(self, name: str) -> bool:
        return isinstance(self.arguments.get(name), Operand)

    def number(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    @property
    def inputs(self) -> list[Operand]:
        return [operand for value in self.arguments.values() for operand in operands(value)]

    @property
    def changed(self) -> list[Operand]:
        return [operand for name in sorted(self.written) for operand in operands(self.arguments.get(name))]

    @property
    def size(self) -> int:
        """Elements of the first output, or of the first tensor that is changed."""
        made = self.outputs or tuple(self.changed)
        return made[0].elements if made else 0


class Cost(NamedTuple):
    category: Category
    flop: float | None
    read_bytes: float
    written_bytes: float


Rule = Callable[[Call], Cost]


def operands(value: Any) -> Iterable[Operand]:
    if isinstance(value, Operand):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from operands(item)


def traffic(call: Call) -> tuple[float, float]:
    """Every input once, every output once; in place, what is changed is written back."""
    written = call.changed if call.written else call.outputs
    return float(sum(o.bytes for o in call.inputs)), float(sum(o.bytes for o in written))


def written_bytes(call: Call) -> float:
    return traffic(call)[1]
