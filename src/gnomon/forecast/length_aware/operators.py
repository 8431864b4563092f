"""Operators of an encoder layer with their work as a function of length, and who waits for whom.

Peng et al., A Length Adaptive Algorithm-Hardware Co-design of Transformer on FPGA, DAC 2022 (arXiv:2208.03646), section
on coarse-grained pipelining: P(v, s) = W(v, s) + max over successors P(u, s) is an operator's priority.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Work = Callable[[float], float]  # length in tokens -> work, in multiply-adds or what takes as long as one

_NORM = 8.0  # multiply-adds that a residual sum and a normalization cost per element; ours


@dataclass(frozen=True, slots=True)
class Operator:
    """work: at a length, on one unit of its resource."""

    name: str
    work: Work


@dataclass(frozen=True, slots=True)
class Layer:
    """Operators and edges (producer, consumer) by name. Raises ValueError for an edge to nowhere, or a circle."""

    operators: tuple[Operator, ...]
    edges: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        names = [operator.name for operator in self.operators]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"operators must have different names, and there must be one; got {names}")
        for edge in self.edges:
            if unknown := [name for name in edge if name not in names]:
                raise ValueError(f"edges name {unknown[0]!r}, which is no operator; there are {', '.join(names)}")
        self.order()

    def order(self) -> list[Operator]:
        """Operators, each after all that it waits for. Raises ValueError when they wait in a circle."""
        waits = {operator.name: {a for a, b in self.edges if b == operator.name} for operator in self.operators}
        found: list[Operator] = []
        while len(found) < len(self.operators):
            done = {operator.name for operator in found}
            ready = [one for one in self.operators if one.name not in done and waits[one.name] <= done]
            if not ready:
                circle = ", ".join(name for name in waits if name not in done)
                raise ValueError(f"edges lead in a circle through or into {circle}; a layer must have an order")
            found += ready
        return found

    def priorities(self, length: float) -> dict[str, float]:
        """Work of the longest path from each operator to the end, its own included."""
        found: dict[str, float] = {}
        for operator in reversed(self.order()):
            after = [found[b] for a, b in self.edges if a == operator.name]
            found[operator.name] = operator.work(length) + max(after, default=0.0)
        return found

    def work(self, length: float) -> float:
        """Work of all operators."""
        return sum(operator.work(length) for operator in self.operators)


def chain(works: Mapping[str, Work]) -> Layer:
    """Operators that follow one another."""
    names = list(works)
    return Layer(tuple(Operator(name, work) for name, work in works.items()), tuple(itertools.pairwise(names)))


def encoder(width: int = 768, ffn: int = 3072, top_k: int | None = 30, estimates: float = 8.0) -> Layer:
    """A transformer encoder layer. top_k: keys that exact attention keeps, found by low-bit scores; None is dense.

    estimates: low-bit multiply-adds, or comparisons, that take as long as one exact multiply-add.
    Raises ValueError naming the argument.
    """
    for name, value in (("width", width), ("ffn", ffn), ("estimates", estimates)):
        if value <= 0:
            raise ValueError(f"{name} must be positive; got {value}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, or None for dense attention; got {top_k}")
    before: Sequence[tuple[str, Work]] = [("qkv", lambda s: 3 * s * width**2)]
    if top_k is None:
        attention: Sequence[tuple[str, Work]] = [
            ("scores", lambda s: s * s * width),
            ("values", lambda s: s * s * width),
        ]
        extra: tuple[tuple[str, str], ...] = (("qkv", "values"),)
    else:
        attention = [
            ("estimate", lambda s: s * s * width / estimates),
            ("select", lambda s: s * s / estimates),
            ("scores", lambda s: s * min(s, top_k) * width),
            ("values", lambda s: s * min(s, top_k) * width),
        ]
        extra = (("qkv", "scores"), ("qkv", "values"))
    after: Sequence[tuple[str, Work]] = [
        ("projection", lambda s: s * width**2),
        ("norm 1", lambda s: _NORM * s * width),
        ("ffn 1", lambda s: s * width * ffn),
        ("ffn 2", lambda s: s * width * ffn),
        ("norm 2", lambda s: _NORM * s * width),
    ]
    line = chain(dict([*before, *attention, *after]))
    return Layer(line.operators, (*line.edges, *extra, ("norm 1", "norm 2")))
