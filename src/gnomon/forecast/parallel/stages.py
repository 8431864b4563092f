"""Pipeline stages: a graph cut into contiguous runs of forward operators whose forecast times are as equal as can be.

A backward operator goes where its forward operator went, an update where its parameter is. Which forward operator that
is follows from the module that made the node and the values that it saved. Each cut is paid with what must be sent.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gnomon.core.errors import UsageError
from gnomon.workload.graph import OpGraph, Storage

_MOST_CUTS = 700  # places that are tried; of more, those where the least must be sent
_SLACK = 1.01  # a stage may be so much longer than the best possible when less is sent for it


class Cut(NamedTuple):
    """stage: of every operator. sent: for each boundary the tensors that cross it (activations, one per storage).

    shared: tensors of parameters that more than one stage uses.
    """

    stage: tuple[int, ...]
    sent: tuple[tuple[int, ...], ...]
    shared: tuple[int, ...]


def cut(graph: OpGraph, times_s: Sequence[float], stages: int, send_s: Callable[[float], float]) -> Cut:
    """Cut `graph` into `stages`. times_s: of every operator. send_s: seconds to send so many bytes.

    Raises UsageError when there are fewer operators than stages.
    """
    forward = [i for i, op in enumerate(graph.ops) if op.phase == "forward"]
    anchors = _anchors(graph)
    position = {i: k for k, i in enumerate(forward)}
    cost = np.zeros(len(forward) + 1)
    for i, anchor in enumerate(anchors):
        if graph.ops[i].phase != "optimizer":
            cost[position[anchor] + 1] += times_s[i]
    lives = _crossing(graph, position)
    places = [k for k, i in enumerate(forward) if graph.ops[i].category != "view" and k]  # views stay with their source
    if len(places) < stages - 1:
        raise UsageError(f"{stages} pipeline stages need as many operators; {graph.name} has {len(places) + 1}")
    bounds = _bounds(np.cumsum(cost), _live_bytes(lives, len(forward)), places, stages, send_s)
    stage_of = [bisect_left(bounds, position[anchor] + 1) for anchor in anchors]
    sent = tuple(tuple(life.tensor for life in lives if life.first < bound <= life.last) for bound in bounds)
    return Cut(tuple(stage_of), sent, _shared(graph, stage_of))


def stage_graph(graph: OpGraph, members: Sequence[int], share: float = 1.0) -> OpGraph:
    """The operators `members` (indices in order) as a graph of their own. share: of their work and traffic."""
    ops = [graph.ops[i] for i in members]
    used = sorted({t for op in ops for t in (*op.inputs, *op.outputs)})
    storages = sorted({graph.tensors[t].storage for t in used})
    new_tensor = {t: k for k, t in enumerate(used)}
    new_storage = {s: k for k, s in enumerate(storages)}
    tensors = [replace(graph.tensors[t], storage=new_storage[graph.tensors[t].storage]) for t in used]
    first: dict[int, int] = {}
    for k, op in enumerate(ops):
        for t in (*op.inputs, *op.outputs):
            first.setdefault(graph.tensors[t].storage, k)
    lives: list[Storage] = []
    for s in storages if graph.storages else ():
        old = graph.storages[s]
        freed = None if old.freed is None else max(bisect_left(members, old.freed), first[s] + 1)
        lives.append(replace(old, born=-1 if old.born < 0 else first[s], freed=freed))
    moved = [
        replace(
            op,
            inputs=tuple(new_tensor[t] for t in op.inputs),
            outputs=tuple(new_tensor[t] for t in op.outputs),
            flop=None if op.flop is None else op.flop * share,
            read_bytes=op.read_bytes * share,
            written_bytes=op.written_bytes * share,
        )
        for op in ops
    ]
    held = {
        tensors[new_tensor[t]].storage: graph.tensors[t].elements for t in used if graph.tensors[t].role == "parameter"
    }
    return OpGraph(graph.name, graph.mode, tuple(moved), tuple(tensors), sum(held.values()), tuple(lives))


class _Life(NamedTuple):
    """A storage that forward operators at `first` and after pass on; crosses every cut in (first, last]."""

    first: int
    last: int
    tensor: int
    bytes: int


def _crossing(graph: OpGraph, position: dict[int, int]) -> list[_Life]:
    """What depends on a parameter; positions and masks are computed by every stage for itself."""
    learned = {info.storage for info in graph.tensors if info.role == "parameter"}
    given = {i for i, info in enumerate(graph.tensors) if info.role in ("parameter", "buffer", "input")}
    first: dict[int, int] = {}
    last: dict[int, tuple[int, int]] = {}
    for i, k in position.items():
        op = graph.ops[i]
        if any(graph.tensors[t].storage in learned for t in op.inputs):
            for t in op.outputs:
                learned.add(graph.tensors[t].storage)
                first.setdefault(graph.tensors[t].storage, k)
        for t in op.inputs:
            storage = graph.tensors[t].storage
            if storage in first and t not in given:
                last[storage] = (k, t)
    return [_Life(first[s], k, t, graph.tensors[t].bytes) for s, (k, t) in last.items() if k > first[s]]


def _live_bytes(lives: Sequence[_Life], count: int) -> np.ndarray:
    """Bytes that a cut before each position would have to send."""
    change = np.zeros(count + 2)
    for life in lives:
        change[life.first + 1] += life.bytes
        change[life.last + 1] -= life.bytes
    return np.cumsum(change)[: count + 1]


def _bounds(
    total: np.ndarray, live: np.ndarray, inner: Sequence[int], stages: int, send_s: Callable[[float], float]
) -> list[int]:
    """Positions before which a new stage begins, stages - 1 of them: least longest stage, then least to send."""
    places = [0, *_thinned(inner, live, stages), len(total) - 1]
    sending = np.array([0.0, *(send_s(float(live[p])) for p in places[1:-1]), 0.0])
    at = total[places]
    length = at[None, :] - at[:, None] + sending[:, None]  # from place i to place j, what it receives included
    length[np.tril_indices(len(places))] = math.inf
    longest = _best(length, stages, np.maximum)[0]
    allowed = np.where(length <= longest * _SLACK, live[places][:, None], math.inf)
    return [places[i] for i in _best(allowed, stages, np.add)[1]]


def _thinned(places: Sequence[int], live: np.ndarray, stages: int) -> list[int]:
    """Of too many places, the cheapest one of every few."""
    if len(places) <= _MOST_CUTS:
        return list(places)
    width = math.ceil(len(places) / max(_MOST_CUTS, stages))
    return [min(places[a : a + width], key=lambda p: live[p]) for a in range(0, len(places), width)]


def _best(
    cost: np.ndarray, stages: int, join: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[float, list[int]]:
    """The cheapest path from the first to the last place in `stages` strides, and the places between."""
    best = cost[0].copy()
    came: list[np.ndarray] = []
    for _ in range(stages - 1):
        through = join(best[:, None], cost)
        came.append(through.argmin(axis=0))
        best = through.min(axis=0)
    path, place = [], len(cost) - 1
    value = float(best[place])
    for step in reversed(came):
        place = int(step[place])
        path.append(place)
    return value, path[::-1]


def _anchors(graph: OpGraph) -> list[int]:
    """For every operator the forward operator that it belongs to."""
    spans: dict[str, tuple[int, int]] = {}
    for i, op in enumerate(graph.ops):
        if op.phase == "forward":
            spans[op.module] = (spans.get(op.module, (i, i))[0], i)
    producers = graph.producers
    last_forward = max((i for i, op in enumerate(graph.ops) if op.phase == "forward"), default=0)
    anchors: list[int] = []
    owner: dict[int, int] = {}  # storage of a gradient, a parameter or its state -> anchor
    for i, op in enumerate(graph.ops):
        if op.phase == "forward":
            anchors.append(i)
        elif op.phase == "backward":
            anchors.append(_backward_anchor(graph, i, spans, producers, anchors, last_forward))
        else:
            anchors.append(-1)
    for i, op in enumerate(graph.ops):  # a parameter is updated where it is used first, and its state with it
        for t in op.inputs if op.phase == "forward" else ():
            if graph.tensors[t].role == "parameter":
                owner.setdefault(graph.tensors[t].storage, i)
        for t in op.outputs if op.phase == "backward" else ():
            if graph.tensors[t].role == "gradient":
                owner[graph.tensors[t].storage] = anchors[i]
    updates = [i for i, op in enumerate(graph.ops) if op.phase == "optimizer"]
    for wanted in ("parameter", "gradient"):
        for i in updates:
            taken = [graph.tensors[t] for t in graph.ops[i].inputs]
            known = next((owner[info.storage] for info in taken if info.role == wanted and info.storage in owner), None)
            for info in taken:
                if known is not None and info.role == "optimizer_state":
                    owner.setdefault(info.storage, known)
    after = last_forward
    for i in reversed(updates):  # a step counter goes with the parameter whose update follows
        taken = sorted((graph.tensors[t] for t in graph.ops[i].inputs), key=lambda info: info.role == "gradient")
        after = next((owner[info.storage] for info in taken if info.storage in owner), after)
        anchors[i] = after
    return anchors


def _backward_anchor(
    graph: OpGraph,
    i: int,
    spans: dict[str, tuple[int, int]],
    producers: dict[int, int],
    anchors: list[int],
    last_forward: int,
) -> int:
    """The latest forward operator of its module whose value it takes, but none later than where its gradients are."""
    op = graph.ops[i]
    made = [producers[t] for t in op.inputs if t in producers and producers[t] < i]
    low, high = spans.get(op.module, (0, last_forward))
    saved = [p for p in made if graph.ops[p].phase == "forward" and low <= p <= high]
    gradients = [anchors[p] for p in made if graph.ops[p].phase == "backward"]
    anchor = max(saved) if saved else (min(gradients) if gradients and low <= min(gradients) <= high else high)
    return min([anchor, *gradients])


def _shared(graph: OpGraph, stage_of: Sequence[int]) -> tuple[int, ...]:
    """Parameters that forward operators of several stages take."""
    users: dict[int, set[int]] = {}
    tensor: dict[int, int] = {}
    for op, stage in zip(graph.ops, stage_of, strict=True):
        for t in op.inputs if op.phase == "forward" else ():
            if graph.tensors[t].role == "parameter":
                users.setdefault(graph.tensors[t].storage, set()).add(stage)
                tensor.setdefault(graph.tensors[t].storage, t)
    return tuple(tensor[s] for s, stages in users.items() if len(stages) > 1)
