"""Memory that one step holds: which storages live while each operator runs, and the largest sum of them.

What a library takes for itself while an operator runs (a convolution's workspace, packed weights) and what an allocator
keeps or rounds up is not known from the graph and is not in these numbers.
"""

from dataclasses import dataclass
from itertools import accumulate

from gnomon.core.records import record
from gnomon.workload.graph import OpGraph, Role, Storage


@record("memory-profile", 1)
@dataclass(frozen=True, slots=True)
class MemoryProfile:
    """Bytes held at the worst moment, by what they are for, and over time.

    peak_at: index of the operator during which the peak occurs, None in a graph without operators. parameter_bytes:
    parameters and buffers. gradient_bytes: of parameters. activation_bytes: all else that the step makes, gradients
    of activations and temporaries included. timeline: bytes held while each operator runs. The optimizer's state is
    there from the beginning, as in every step after the first.
    """

    peak_bytes: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    input_bytes: int
    peak_at: int | None
    timeline: tuple[int, ...]


_SHOWN: dict[Role, str] = {
    "parameter": "parameter", "buffer": "parameter", "gradient": "gradient", "optimizer_state": "optimizer",
    "activation": "activation", "input": "input", "constant": "input",
}  # fmt: skip


def peak(graph: OpGraph) -> MemoryProfile:
    """The memory profile of one step. A graph that carries no observed storages gets them from first and last uses."""
    storages = graph.storages or lifetimes(graph)
    count = len(graph.ops)
    change = [0] * (count + 1)
    for storage in storages:
        change[max(storage.born, 0)] += storage.bytes
        if storage.freed is not None and storage.freed <= count:
            change[storage.freed] -= storage.bytes
    timeline = tuple(accumulate(change))[: count or 1]
    at = max(range(len(timeline)), key=timeline.__getitem__)
    held = dict.fromkeys(("parameter", "gradient", "optimizer", "activation", "input"), 0)
    for storage in storages:
        if storage.born <= at and (storage.freed is None or storage.freed > at):
            held[_SHOWN[storage.role]] += storage.bytes
    return MemoryProfile(
        peak_bytes=timeline[at],
        parameter_bytes=held["parameter"],
        gradient_bytes=held["gradient"],
        optimizer_bytes=held["optimizer"],
        activation_bytes=held["activation"],
        input_bytes=held["input"],
        peak_at=at if count else None,
        timeline=timeline if count else (),
    )


def lifetimes(graph: OpGraph) -> tuple[Storage, ...]:
    """Storages from the operators alone: born with the first tensor, freed after the last use.

    What was there before the step, parameter gradients and what nobody consumes outlive the step.
    """
    born: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, op in enumerate(graph.ops):
        for tensor in op.inputs:
            storage = graph.tensors[tensor].storage
            born.setdefault(storage, -1)
            last[storage] = i
        for tensor in op.outputs:
            born.setdefault(graph.tensors[tensor].storage, i)
    size: dict[int, int] = {}
    role: dict[int, Role] = {}
    for info in graph.tensors:
        size[info.storage] = max(size.get(info.storage, 0), info.bytes)
        role.setdefault(info.storage, info.role)
    return tuple(
        Storage(
            bytes=size[storage],
            role=role[storage],
            born=born.get(storage, -1),
            freed=last[storage] + 1
            if role[storage] == "activation" and storage in last and last[storage] > born[storage] >= 0
            else None,
        )
        for storage in sorted(size)
    )
