"""Data parallelism: what replicas exchange, and how much of it hides behind the computation.

Gradients are reduced in buckets in the order in which the backward pass makes them (Li et al. 2020, arXiv 2006.15704,
buckets of 25 MB). ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): stages 1 and 2 scatter the reduced gradients and
gather the updated parameters; stage 3 gathers parameters before each use, forward and backward, and keeps two groups of
them at most. Computation and communication are two streams; neither slows the other here.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gnomon.workload.graph import OpGraph

BUCKET_BYTES = 25e6


class Bucket(NamedTuple):
    """Tensors that are communicated together. at: operator after which (gradients) or before which (parameters)."""

    at: int
    tensors: tuple[int, ...]
    bytes: float


def gradient_buckets(graph: OpGraph, limit: float = BUCKET_BYTES) -> list[Bucket]:
    """Gradients of the parameters, in the order in which they are ready; `at`: the one that finishes the last."""
    ready: dict[int, tuple[int, int]] = {}
    for i, op in enumerate(graph.ops):
        for t in op.outputs if op.phase == "backward" else ():
            if graph.tensors[t].role == "gradient":
                ready[graph.tensors[t].storage] = (i, t)
    return _filled(graph, sorted(ready.values()), limit, last=True)


def parameter_buckets(graph: OpGraph, phase: str, limit: float = BUCKET_BYTES) -> list[Bucket]:
    """Parameters in the order in which `phase` uses them first; `at` is the first operator that does."""
    first: dict[int, tuple[int, int]] = {}
    for i, op in enumerate(graph.ops):
        for t in op.inputs if op.phase == phase else ():
            if graph.tensors[t].role == "parameter":
                first.setdefault(graph.tensors[t].storage, (i, t))
    return _filled(graph, sorted(first.values()), limit, last=False)


def _filled(graph: OpGraph, found: Sequence[tuple[int, int]], limit: float, *, last: bool) -> list[Bucket]:
    buckets: list[Bucket] = []
    tensors: list[int] = []
    size = 0.0
    start = 0
    for k, (i, t) in enumerate(found):
        start = i if not tensors or last else start
        tensors.append(t)
        size += graph.tensors[t].bytes
        if size >= limit or k == len(found) - 1:
            buckets.append(Bucket(start, tuple(tensors), size))
            tensors, size = [], 0.0
    return buckets


def reduce_behind(ready_s: Sequence[float], transfer_s: Sequence[float], compute_s: float) -> float:
    """When both streams are done: each bucket leaves when it is ready and the one before has gone."""
    free = 0.0
    for ready, seconds in zip(ready_s, transfer_s, strict=True):
        free = max(free, ready) + seconds
    return max(compute_s, free)


class Group(NamedTuple):
    """Parameters that are gathered together, used for `compute_s`, then `reduce_s` to scatter their gradients."""

    gather_s: float
    compute_s: float
    reduce_s: float


def gather_ahead(groups: Sequence[Group]) -> float:
    """Fully sharded: the next group is gathered while this one computes; its gradients leave behind it.

    The communication stream works in order: gather of the group after next only when this group has been computed.
    """
    stream = compute = gathered = 0.0
    for k, group in enumerate(groups):
        if k == 0:
            stream = gathered = group.gather_s
        begin = max(compute, gathered)
        compute = begin + group.compute_s
        if k + 1 < len(groups):
            stream = gathered = max(stream, begin) + groups[k + 1].gather_s
        if group.reduce_s:
            stream = max(stream, compute) + group.reduce_s
    return max(compute, stream)
