"""When each stage of a pipeline works: GPipe (Huang et al. 2019, arXiv 1811.06965) and 1F1B (Narayanan et al. 2019).

The orders of work are the schedules' own; the times follow by simulation, exact for unequal stages.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gnomon.forecast.parallel.plan import Schedule


class Timeline(NamedTuple):
    """ends: when each stage has done its last micro-batch. busy: seconds that each stage worked."""

    ends: tuple[float, ...]
    busy: tuple[float, ...]


class Task(NamedTuple):
    micro_batch: int
    is_backward: bool


def order(stage: int, stages: int, micro_batches: int, schedule: Schedule, is_training: bool) -> list[Task]:
    """What a stage does, in order. 1F1B: fill the later stages, then one forward and one backward in turn."""
    forward = [Task(i, False) for i in range(micro_batches)]
    if not is_training:
        return forward
    if schedule == "gpipe":
        return forward + [Task(i, True) for i in reversed(range(micro_batches))]
    ahead = min(micro_batches, stages - 1 - stage)
    tasks = forward[:ahead]
    for i in range(micro_batches):
        if ahead + i < micro_batches:
            tasks.append(forward[ahead + i])
        tasks.append(Task(i, True))
    return tasks


def in_flight(stage: int, stages: int, micro_batches: int, schedule: Schedule) -> int:
    """Micro-batches whose activations a stage holds at most."""
    held = most = 0
    for task in order(stage, stages, micro_batches, schedule, True):
        held += -1 if task.is_backward else 1
        most = max(most, held)
    return most


def simulate(
    forward_s: Sequence[float],
    backward_s: Sequence[float] | None,
    send_s: Sequence[float],
    micro_batches: int,
    schedule: Schedule,
) -> Timeline:
    """forward_s, backward_s: one micro-batch on each stage; None in inference. send_s: from each stage to the next.

    Sending does not keep a stage from working; the receiver waits for it.
    """
    stages = len(forward_s)
    queues = [order(s, stages, micro_batches, schedule, backward_s is not None) for s in range(stages)]
    done: dict[tuple[int, Task], float] = {}
    at, ends, busy = [0] * stages, [0.0] * stages, [0.0] * stages
    moved = True
    while moved:
        moved = False
        for s in range(stages):
            while at[s] < len(queues[s]):
                task = queues[s][at[s]]
                ready = _ready(s, task, stages, send_s, done)
                if ready is None:
                    break
                seconds = backward_s[s] if task.is_backward and backward_s is not None else forward_s[s]
                ends[s] = max(ends[s], ready) + seconds
                busy[s] += seconds
                done[s, task] = ends[s]
                at[s] += 1
                moved = True
    return Timeline(tuple(ends), tuple(busy))


def _ready(
    stage: int, task: Task, stages: int, send_s: Sequence[float], done: dict[tuple[int, Task], float]
) -> float | None:
    """When the stage has what the task needs; None while that is not known."""
    if task.is_backward:
        source, delay = (stage + 1, send_s[stage]) if stage + 1 < stages else (None, 0.0)
    else:
        source, delay = (stage - 1, send_s[stage - 1]) if stage else (None, 0.0)
    if source is None:
        return 0.0
    finished = done.get((source, task))
    return None if finished is None else finished + delay
