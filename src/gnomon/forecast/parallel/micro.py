"""Micro-batches: the graph of a part of the batch, found by following the batch axis from the inputs."""

from collections import Counter

from gnomon.core.errors import UsageError
from gnomon.forecast.parallel.axis import Axis
from gnomon.forecast.parallel.divide import Division, propagate, shrunk, start
from gnomon.forecast.parallel.rules import Conflict, Meeting
from gnomon.workload.graph import Op, OpGraph


def micro_batch(graph: OpGraph, count: int) -> OpGraph:
    """The graph of one of `count` equal parts of the batch; parameters, their gradients and optimizer stay whole.

    The batch is the first axis of the inputs. What does not depend on it (masks of positions) is computed every time.
    Raises UsageError when `count` does not divide the batch or no input has one.
    """
    if count < 1:
        raise UsageError(f"wanted at least 1 micro-batch; got {count}")
    if count == 1:
        return graph
    batch = batch_of(graph)
    if batch % count:
        raise UsageError(f"{count} micro-batches do not divide the batch of {batch}; choose a divisor of {batch}")
    division = start(graph, count)
    reduced: dict[tuple[int, ...], Axis] = {}
    for i, info in enumerate(graph.tensors):
        if info.role == "input" and info.shape and info.shape[0] == batch:
            division.states[i] = Axis(0, 1, batch)
    for i, op in enumerate(graph.ops):
        _meet(division, i, op, reduced)
    return shrunk(division, count, count, graph.parameters)


def batch_of(graph: OpGraph) -> int:
    """The first axis that most inputs share. Raises UsageError when no input has an axis."""
    taken = {tensor for op in graph.ops for tensor in op.inputs}
    sizes = Counter(
        info.shape[0] for i, info in enumerate(graph.tensors) if info.role == "input" and info.shape and i in taken
    )
    if not sizes:
        raise UsageError("micro-batches need inputs with a batch axis; the graph has none. Use one micro-batch")
    return sizes.most_common(1)[0][0]


def _meet(division: Division, i: int, op: Op, reduced: dict[tuple[int, ...], Axis]) -> None:
    meeting = division.meeting(op)
    if op.phase == "optimizer":
        return
    if not any(isinstance(s, Axis) for s in meeting.states):
        if op.phase == "backward" and meeting.name == "expand" and meeting.outputs[0] in reduced:
            division.states[op.outputs[0]] = reduced[meeting.outputs[0]]
            division.share[i] = 1 / division.parts
        return
    try:
        outputs = list(propagate(division, op).outputs)
    except Conflict:
        outputs = [_same_rows(meeting, shape) for shape in meeting.outputs]
    for tensor, state in zip(op.outputs, outputs, strict=True):
        division.states[tensor] = state if isinstance(state, Axis) else None  # summands are added up over micro-batches
    division.share[i] = 1 / division.parts
    if op.category == "reduction" and op.phase == "forward":
        reduced.update(
            (shape, state)
            for shape, state in zip(meeting.shapes, meeting.states, strict=True)
            if isinstance(state, Axis)
        )


def _same_rows(meeting: Meeting, shape: tuple[int, ...]) -> Axis | None:
    """For an operator without a rule: an output with as many rows as a divided input has them divided, too."""
    for state, taken in zip(meeting.states, meeting.shapes, strict=True):
        if isinstance(state, Axis) and state.dim == 0 and shape and shape[0] == taken[0]:
            return state
    return None
