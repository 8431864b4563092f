"""Cut a layer into coarse stages and give each its share of the resources, both for the average length."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.forecast.length_aware.operators import Layer, Operator


@dataclass(frozen=True, slots=True)
class Stage:
    """Operators that share units of the resource and work one after another. units: how many they have."""

    operators: tuple[Operator, ...]
    units: int

    @property
    def name(self) -> str:
        return " + ".join(operator.name for operator in self.operators)

    def work(self, length: float) -> float:
        return sum(operator.work(length) for operator in self.operators)

    def seconds(self, length: float, unit_rate: float = 1.0) -> float:
        """Time of one sequence. unit_rate: work that one unit does a second."""
        return self.work(length) / (self.units * unit_rate)


def allocate(layer: Layer, s_avg: float, budget: int, stages: int = 3, target: float | None = None) -> list[Stage]:
    """Stages of a layer and their units. Operators are taken by decreasing priority at the length s_avg; a new stage
    begins where the next operator would take a stage beyond `target`, the work of one stage at s_avg.

    target: when not given, the least with which there are no more than `stages`. budget: units in all; each stage gets
    one, the rest go by its work at s_avg, so that all take the same time there.
    Raises ValueError naming the argument.
    """
    if not s_avg > 0:
        raise ValueError(f"s_avg must be positive; got {s_avg}")
    if stages < 1:
        raise ValueError(f"stages must be at least 1; got {stages}")
    priorities = layer.priorities(s_avg)
    ordered = sorted(layer.order(), key=lambda operator: -priorities[operator.name])  # stable: ties keep their order
    works = [operator.work(s_avg) for operator in ordered]
    groups = _cut(works, _least_target(works, stages) if target is None else target)
    return _share([tuple(ordered[i] for i in group) for group in groups], s_avg, budget)


def by_name(layer: Layer, cut: Sequence[Sequence[str]], s_avg: float, budget: int) -> list[Stage]:
    """Stages of which the operators are given, names that the layer lacks left out; units as `allocate` gives them.

    Raises ValueError when an operator of the layer is in no stage or in two, or a stage is empty.
    """
    operators = {operator.name: operator for operator in layer.operators}
    groups = [tuple(operators[name] for name in names if name in operators) for names in cut]
    if sorted(one.name for group in groups for one in group) != sorted(operators) or not all(groups):
        raise ValueError(f"cut must put each of {', '.join(operators)} into one stage; got {[list(n) for n in cut]}")
    return _share(groups, s_avg, budget)


def _share(groups: Sequence[tuple[Operator, ...]], s_avg: float, budget: int) -> list[Stage]:
    if len(groups) > budget:
        raise ValueError(f"budget must give each of the {len(groups)} stages a unit; got {budget}")
    works = [sum(operator.work(s_avg) for operator in group) for group in groups]
    return [Stage(group, units) for group, units in zip(groups, _units(works, budget), strict=True)]


def _cut(works: Sequence[float], target: float) -> list[list[int]]:
    groups: list[list[int]] = [[]]
    filled = 0.0
    for i, work in enumerate(works):
        if groups[-1] and filled + work > target * (1 + 1e-12):  # sums in another order differ in the last bit
            groups.append([])
            filled = 0.0
        groups[-1].append(i)
        filled += work
    return groups


def _least_target(works: Sequence[float], stages: int) -> float:
    """The least of the possible stage works that needs no more than `stages` stages."""
    possible = {sum(works[i:j]) for i, j in itertools.combinations(range(len(works) + 1), 2)}
    return min(target for target in possible if target >= max(works) and len(_cut(works, target)) <= stages)


def _units(works: Sequence[float], budget: int) -> list[int]:
    """Whole units in proportion to work, at least one each: the next unit goes to the stage that is slowest."""
    total = sum(works)
    units = [max(1, int(budget * work / total)) if total else 1 for work in works]
    while sum(units) > budget:  # stages that were raised to one unit took them from others
        fullest = min((i for i, n in enumerate(units) if n > 1), key=lambda i: works[i] / units[i])
        units[fullest] -= 1
    while sum(units) < budget:
        units[max(range(len(works)), key=lambda i: works[i] / units[i])] += 1
    return units
