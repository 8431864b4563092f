"""Ideal latency: how far a model is from what its operators could do here, and what closes which part.

Benanza, Li et al. 2020, arXiv 1911.06922. The lower bound is the sum, one after the other, of the best measured time of
each unique operator; the parallel bound is the longest path through the data dependencies with the same times.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.measure.analyses import join
from gnomon.measure.analyses.analysis import Analysis, Cell, Column, Form
from gnomon.measure.analyses.composition import NO_UNIQUE
from gnomon.measure.analyses.subject import NO_GRAPH, Subject
from gnomon.measure.record import Measurement
from gnomon.measure.unique import AS_IS, UniqueOperator, UniqueOperators, operator_digest
from gnomon.workload.graph import Op, OpGraph

_FUSED = {"elementwise", "view"}  # what a compiler melts into the operator before it

FORM = Form(
    "ideal-latency",
    "ideal latency",
    "How far is the model from the best its operators can do here, and which change closes which part?",
    (
        Column("part", "text"),
        Column("seconds", "s"),
        Column("share", "share", "of the measured latency"),
        Column("closed_by", "text"),
    ),
    frozenset({"graph", "unique"}),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds. measured: the untraced step. operators: the sum of its operators as measured in the model, None when
    that level was not run. alone: the same operators alone, in the algorithm that the model runs. lower: of the best
    time of each. sequential, critical: sum and longest path over the graph with these, None without a graph.
    """

    measured: float
    operators: float | None
    alone: float
    lower: float
    sequential: float | None
    critical: float | None


def analyze(subject: Subject) -> Analysis:
    """The latency down to the lower bound, part by part, then what could go below it."""
    unique = subject.unique
    if unique is None:
        return FORM.cannot(subject.name, subject.why_no("unique", NO_UNIQUE))
    unknown = [one for one in unique.operators if _best(one, subject.measurement, unique) is None]
    found = bounds(unique, subject.measurement, subject.graph)
    rows: list[tuple[Cell, ...]] = [_row("measured latency", found.measured, found, "")]
    if found.operators is not None:
        rows += [
            _row("framework overhead", found.measured - found.operators, found,
                 "larger batches, CUDA graphs, torch.compile, another engine: fewer or cheaper calls"),
            _row("operators in the model over alone", found.operators - found.alone, found,
                 "data that stays in the cache, memory that is reused"),
        ]  # fmt: skip
    else:
        rows.append(_row("framework and caches", found.measured - found.alone, found,
                         "told apart by gnomon run --level operator"))  # fmt: skip
    rows += [
        _row("algorithm", found.alone - found.lower, found, _algorithms(unique)),
        _row("lower bound", found.lower, found, "sum of the best measured operators, one after the other"),
    ]
    notes = [
        f"{unique.clock} time with {unique.threads} thread{'s' if unique.threads != 1 else ''} on {unique.machine}; "
        "the parts between latency and lower bound add up; what lies below the bound does not, each is 'at most'"
    ]
    if subject.graph is not None and found.critical is not None and found.sequential is not None:
        times = _best_by_op(subject.graph, unique, subject.measurement)
        rows += [
            _row("below it: missed fusion", fusion(subject.graph, times), found,
                 "at most, by torch.compile: elementwise operators melt into the operator before them"),
            _row("below it: no parallel branches", found.sequential - found.critical, found,
                 "at most, with as many streams or threads as there are branches"),
            _row("critical path", found.critical, found, "longest chain of data dependencies"),
        ]  # fmt: skip
        missed = sum(time is None for time in times)
        notes += [f"{missed} operators of the graph have no time of their own and count 0"] if missed else []
    else:
        notes.append(f"fusion and parallel branches: {subject.why_no('graph', NO_GRAPH)}")
    other = _other_dtype(unique, subject.measurement)
    if other is not None:
        rows.append(_row("below it: bfloat16", other, found, "at most, where quality allows: gnomon sharpen"))
    else:
        notes.append("no operator ran faster in bfloat16 here")
    if unknown:
        notes.append(f"not run alone, in no bound: {', '.join(sorted({one.name for one in unknown}))}")
    if found.lower > found.measured:
        notes.append("the bound is above the latency: the machine was slower when the operators ran; measure again")
    return FORM.answer(subject.name, rows, notes)


def bounds(unique: UniqueOperators, measurement: Measurement | None, graph: OpGraph | None) -> Bounds:
    """The latency and what bounds it, all on the clock of `unique`.

    The best time of an operator is the least of its algorithms alone and of its mean in the model, so that the bound
    never exceeds the sum of the operators in the model.
    """
    best = [(one, _best(one, measurement, unique)) for one in unique.operators]
    lower = math.fsum(one.calls * seconds for one, seconds in best if seconds is not None)
    alone = math.fsum(
        one.calls * one.times.get(AS_IS, seconds) for one, seconds in best if seconds is not None
    )  # fmt: skip
    sequential = critical = None
    if graph is not None:
        times = _best_by_op(graph, unique, measurement)
        sequential, critical = math.fsum(time or 0.0 for time in times), critical_path(graph, times)
    measured, operators = unique.step_s, None
    if measurement is not None:
        latency = measurement.cpu_latency if unique.clock == "cpu" else measurement.latency
        measured = latency["p50"].value if "p50" in latency else unique.step_s
        if measurement.operators:
            operators = math.fsum(_clocked(one, unique) for one in measurement.operators)
    return Bounds(measured, operators, alone, lower, sequential, critical)


def critical_path(graph: OpGraph, seconds: Sequence[float | None]) -> float:
    """Longest chain of operators that wait for each other; None counts 0.

    An operator waits for who last wrote the memory that it reads, and a writer in place also for those who read it.
    """
    written: dict[int, float] = {}  # storage -> when its value is there
    read: dict[int, float] = {}  # storage -> when all who read it have ended
    longest = 0.0
    for op, time in zip(graph.ops, seconds, strict=True):
        taken = {graph.tensors[i].storage for i in op.inputs}
        made = {graph.tensors[i].storage for i in op.outputs}
        changed = made if op.category != "view" else made - taken
        start = max([written.get(s, 0.0) for s in taken], default=0.0)
        start = max([start, *(max(read.get(s, 0.0), written.get(s, 0.0)) for s in changed)])
        end = start + (time or 0.0)
        for storage in taken:
            read[storage] = max(read.get(storage, 0.0), end)
        for storage in changed:
            written[storage] = end
        longest = max(longest, end)
    return longest


def fusion(graph: OpGraph, seconds: Sequence[float | None]) -> float:
    """Seconds that go when each elementwise operator melts into the one whose result it alone uses.

    A chain then takes as long as its longest member: nothing is computed less, but results stay in registers.
    """
    consumers, producers = graph.consumers, graph.producers
    chain = list(range(len(graph.ops)))  # operator -> the first of its chain
    for i, op in enumerate(graph.ops):
        if op.category not in _FUSED:
            continue
        makers = [producers[t] for t in op.inputs if t in producers and len(consumers[t]) == 1]
        if makers:
            chain[i] = chain[max(makers)]
    members: dict[int, list[float]] = defaultdict(list)
    for i, first in enumerate(chain):
        members[first].append(seconds[i] or 0.0)
    return math.fsum(math.fsum(times) - max(times) for times in members.values())


def _row(part: str, seconds: float, found: Bounds, closed_by: str) -> tuple[Cell, ...]:
    return part, seconds, seconds / found.measured if found.measured > 0 else None, closed_by


def _clocked(operator: object, unique: UniqueOperators) -> float:
    return float(getattr(operator, "cpu_s" if unique.clock == "cpu" else "wall_s"))


def _in_model(one: UniqueOperator, measurement: Measurement | None, unique: UniqueOperators) -> float | None:
    """Mean time of a call in the model, where operators of this name and these shapes were measured."""
    same = [
        operator
        for operator in (measurement.operators if measurement is not None else ())
        if operator.shapes == one.shapes and join.base_name(operator.name) == join.base_name(one.name)
    ]
    calls = sum(operator.calls for operator in same)
    return math.fsum(_clocked(operator, unique) for operator in same) / calls if calls else None


def _best(one: UniqueOperator, measurement: Measurement | None, unique: UniqueOperators) -> float | None:
    known = [time for time in (one.best_s, _in_model(one, measurement, unique)) if time is not None]
    return min(known, default=None)


def _best_by_op(graph: OpGraph, unique: UniqueOperators, measurement: Measurement | None) -> list[float | None]:
    """The best time of each operator of the graph: by all that identifies it, else by its name and shapes."""
    exact = {one.digest: _best(one, measurement, unique) for one in unique.operators}
    alike: dict[tuple[str, tuple[tuple[int, ...], ...]], float | None] = {}
    for one in unique.operators:
        alike.setdefault((join.base_name(one.name), one.shapes), exact[one.digest])

    def time(op: Op) -> float | None:
        shapes, dtypes = graph.shapes(op.inputs), [graph.tensors[i].dtype for i in op.inputs]
        digest = operator_digest(op.name, shapes, dtypes, op.attributes)
        return exact.get(digest, alike.get((join.base_name(op.name), tuple(shapes))))

    return [time(op) for op in graph.ops]


def _algorithms(unique: UniqueOperators) -> str:
    gains: dict[str, set[str]] = defaultdict(set)
    for one in unique.operators:
        if one.times:
            best = min(one.times, key=lambda name: one.times[name])
            if best != AS_IS:
                gains[best].add(join.base_name(one.name))
    said = [f"{', '.join(sorted(names))}: {algorithm}" for algorithm, names in sorted(gains.items())]
    return "; ".join(said) or "no other algorithm was faster"


def _other_dtype(unique: UniqueOperators, measurement: Measurement | None) -> float | None:
    """Seconds that operators with a faster dtype would save against their best time."""
    saved = []
    for one in unique.operators:
        best, other = _best(one, measurement, unique), min(one.other_dtype.values(), default=None)
        if best is not None and other is not None and other < best:
            saved.append(one.calls * (best - other))
    return math.fsum(saved) if saved else None
