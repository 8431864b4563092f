"""Measure a task on this machine: its graph, the machine, its times."""

from collections.abc import Sequence

from gnomon.devices.device import Device
from gnomon.measure.record import Level, Measurement
from gnomon.pipeline._progress import Progress, silent
from gnomon.spec.task import Task
from gnomon.store.store import Run
from gnomon.workload.graph import OpGraph


def capture(task: Task, run: Run) -> OpGraph:
    """The operators of one step of the task. Neither memory nor a GPU is needed."""
    from gnomon.workload.capture import capture_task

    graph = capture_task(task)
    run.add(graph)
    return graph


def this_machine(threads: int, run: Run, progress: Progress = silent) -> Device:
    """This machine's CPU as a device whose numbers were measured."""
    from gnomon.measure.peaks import host_device

    device = host_device(threads=threads, progress=progress)
    run.add(device)
    return device


def measure(
    task: Task,
    run: Run,
    *,
    levels: Sequence[Level] = ("model", "layer", "operator"),
    sessions: int | None = None,
    instructions: bool = False,
    progress: Progress = silent,
) -> Measurement:
    """The task's times on this machine, level by level. instructions: count those under valgrind, too."""
    from gnomon.measure.run import measure

    measurement = measure(task, levels=levels, sessions=sessions, instructions=instructions, progress=progress)
    run.add(measurement)
    return measurement
