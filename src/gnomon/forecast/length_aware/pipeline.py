"""Sequences of uneven length through the stages of a pipeline, layer after layer: a flow shop with bounded queues.

A stage is idle, computes (loading its input is part of its time), or is blocked: it has finished, and the next stage
and the buffer before it are full. Layer L + 1 of a sequence may enter the first stage once its layer L has left the
last one; sequences keep their order. With a fixed order all times follow from maxima and sums, so more buffers can
never make it slower.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gnomon.core.gantt import Bar

Seconds = Callable[[float], float]  # length in tokens -> time of one sequence in a stage


@dataclass(frozen=True, slots=True)
class Slot:
    """One sequence of one layer in one stage: computing from start_s to end_s, blocked until leave_s."""

    stage: int
    layer: int
    sequence: int
    start_s: float
    end_s: float
    leave_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """makespan_s: until the last sequence leaves. busy, useful, blocked: of each stage, shares of the makespan in which
    it computes, computes what is not padding, and waits with a finished sequence. slots: in the order of the sequences.
    """

    makespan_s: float
    busy: tuple[float, ...]
    useful: tuple[float, ...]
    blocked: tuple[float, ...]
    slots: tuple[Slot, ...]
    stages: tuple[str, ...]

    @property
    def utilization(self) -> float:
        """Busy share, averaged over stages."""
        return sum(self.busy) / len(self.busy)

    @property
    def useful_utilization(self) -> float:
        return sum(self.useful) / len(self.useful)

    def bars(self) -> list[Bar]:
        """The schedule for a trace; what blocks a stage is drawn too."""
        drawn = []
        for slot in self.slots:
            track, name = self.stages[slot.stage], f"sequence {slot.sequence} layer {slot.layer}"
            drawn.append(Bar(track, name, slot.start_s, slot.end_s))
            if slot.leave_s > slot.end_s:
                drawn.append(Bar(track, f"blocked: {name}", slot.end_s, slot.leave_s))
        return drawn


@dataclass(frozen=True, slots=True)
class PipelineSim:
    """A pipeline. stages: name and time of a sequence of a given length. layers: how often a sequence passes through.
    buffer: finished sequences that can wait before each stage but the first; 0 hands over directly, 1 is a ping-pong
    buffer. Raises ValueError naming the argument.
    """

    stages: tuple[tuple[str, Seconds], ...]
    layers: int = 1
    buffer: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages must not be empty; a pipeline has at least one")
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1; got {self.layers}")
        if self.buffer < 0:
            raise ValueError(f"buffer must not be negative; got {self.buffer}")

    def run(self, lengths: Sequence[int], *, padded_to: int | None = None) -> Run:
        """Send sequences through in the order given. padded_to: every stage takes them for this long.

        Raises ValueError for no sequence, a length below 1, or one beyond padded_to.
        """
        if not lengths or min(lengths) < 1:
            raise ValueError(f"lengths must be at least one, each at least 1; got {list(lengths)[:5]}")
        if padded_to is not None and padded_to < max(lengths):
            raise ValueError(f"padded_to must hold the longest sequence, {max(lengths)} tokens; got {padded_to}")
        count, depth = len(lengths), len(self.stages)
        true = [[seconds(s) for s in lengths] for _, seconds in self.stages]
        taken = [[seconds(padded_to)] * count for _, seconds in self.stages] if padded_to else true
        slots: list[list[Slot]] = [[] for _ in self.stages]  # of each stage, in the order of jobs
        for job in range(self.layers * count):
            layer, sequence = divmod(job, count)
            at = slots[-1][job - count].leave_s if layer else 0.0  # when this sequence is ready for the first stage
            for i in range(depth):
                before = slots[i][job - 1].leave_s if job else 0.0
                start = max(at, before)
                end = start + taken[i][sequence]
                at = max(end, self._room(slots, i, job))
                slots[i].append(Slot(i, layer, sequence, start, end, at))
        makespan = slots[-1][-1].leave_s

        def share(of: Callable[[Slot], float]) -> tuple[float, ...]:
            return tuple(sum(of(slot) for slot in row) / makespan for row in slots)

        return Run(
            makespan_s=makespan,
            busy=share(lambda slot: slot.end_s - slot.start_s),
            useful=share(lambda slot: true[slot.stage][slot.sequence]),
            blocked=share(lambda slot: slot.leave_s - slot.end_s),
            slots=tuple(slot for row in slots for slot in row),
            stages=tuple(name for name, _ in self.stages),
        )

    def _room(self, slots: list[list[Slot]], stage: int, job: int) -> float:
        """When the next stage, or the buffer before it, takes this job."""
        if stage + 1 == len(self.stages):
            return 0.0
        following = slots[stage + 1]
        if self.buffer == 0:
            return following[job - 1].leave_s if job else 0.0
        return following[job - self.buffer].start_s if job >= self.buffer else 0.0


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Lengths in decreasing order: neighbours in the pipeline are alike."""
    return sorted(lengths, reverse=True)
