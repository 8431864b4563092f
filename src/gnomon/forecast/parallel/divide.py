"""A graph divided among devices: every operator, tensor and storage at the size that one device has, plus collectives.

The propagation starts from parameters (`tensor`) or from the batch (`micro`) and walks the operators once, in order;
`rules` says what an operator does with a divided operand. What it cannot do is answered by the caller's policy.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gnomon.forecast.parallel.axis import Axis, local
from gnomon.forecast.parallel.rules import LINEAR, Meeting, Passed, State, passed
from gnomon.workload.graph import Op, OpGraph, Storage, TensorInfo


@dataclass(frozen=True, slots=True)
class Collective:
    """A collective to be put before operator `before`. kind: 'all_reduce' or 'all_gather'. tensor: what it makes whole.

    bytes: of the whole tensor on each device. tensor None: statistics of a softmax, which are no tensor of the graph.
    """

    before: int
    kind: str
    tensor: int | None
    bytes: float


@dataclass(slots=True)
class Division:
    """What is known after a walk. states: by tensor. share: of each operator's work that one device does."""

    graph: OpGraph
    parts: int
    states: list[State]
    share: list[float]
    collectives: list[Collective] = field(default_factory=list)
    whole_from: dict[int, int] = field(default_factory=dict)  # divided tensor -> operator before which it is gathered
    aliases: dict[int, list[int]] = field(default_factory=dict)  # storage -> tensors in it

    def meeting(self, op: Op) -> Meeting:
        name = op.name.removeprefix("aten.").partition(".")[0]
        name = name if name.startswith("_") else name.removesuffix("_")
        return Meeting(
            name,
            op.category,
            self.graph.shapes(op.inputs),
            [self.state(i) for i in op.inputs],
            self.graph.shapes(op.outputs),
            op.attributes,
            self.parts,
        )

    def state(self, tensor: int) -> State:
        """How later operators meet the tensor: whole once it was gathered."""
        return None if tensor in self.whole_from else self.states[tensor]

    def make_whole(self, tensors: Iterable[int], before: int) -> None:
        """Sum partial tensors and gather divided ones before operator `before`."""
        for tensor in dict.fromkeys(tensors):
            state, info = self.state(tensor), self.graph.tensors[tensor]
            if state == "partial":
                self.collectives.append(Collective(before, "all_reduce", tensor, float(info.bytes)))
                for alias in self.aliases[info.storage]:
                    self.states[alias] = None if self.states[alias] == "partial" else self.states[alias]
            elif state is not None:
                self.collectives.append(Collective(before, "all_gather", tensor, float(info.bytes)))
                self.whole_from[tensor] = before

    def set_outputs(self, op: Op, result: Passed) -> None:
        for tensor, state in zip(op.outputs, result.outputs, strict=True):
            self.states[tensor] = state


def is_linear(name: str, states: list[State]) -> bool:
    """Whether sums over devices may wait until after the operator: views, and additions.

    What is whole is then added by one of the devices, so that gradients which meet are summed over devices once.
    """
    return name in LINEAR or (name in ("add", "sub") and not any(isinstance(s, Axis) for s in states))


def start(graph: OpGraph, parts: int) -> Division:
    """Nothing divided yet."""
    division = Division(graph, parts, [None] * len(graph.tensors), [1.0] * len(graph.ops))
    for i, info in enumerate(graph.tensors):
        division.aliases.setdefault(info.storage, []).append(i)
    return division


def propagate(division: Division, op: Op) -> Passed:
    """What an operator with at least one divided input and no partial one makes of it. Raises Conflict."""
    return passed(division.meeting(op))


def shrunk(division: Division, group: int, per_node: int, parameters: int) -> OpGraph:
    """The graph that one device runs, with the collectives as operators of category 'collective'."""
    graph, parts = division.graph, division.parts
    if not graph.ops:
        return graph
    tensors = [_local_info(info, state, parts) for info, state in zip(graph.tensors, division.states, strict=True)]
    ratio = _storage_ratios(graph, tensors)
    storages = [replace(s, bytes=int(s.bytes * ratio.get(i, 1.0))) for i, s in enumerate(graph.storages)]
    before: dict[int, list[Collective]] = {}
    for collective in division.collectives:
        before.setdefault(collective.before, []).append(collective)
    ops: list[Op] = []
    position: list[int] = []  # new index of each old operator
    renamed: dict[int, int] = {}
    for i in range(len(graph.ops) + 1):
        near = graph.ops[min(i, len(graph.ops) - 1)]
        for c in before.get(i, ()):
            ops.append(_collective_op(c, near, graph, tensors, storages, renamed, group, per_node, len(ops)))
        position.append(len(ops))
        if i < len(graph.ops):
            ops.append(_local_op(near, division.share[i], graph, tensors, renamed))
    moved = [
        replace(s, born=position[s.born], freed=None if s.freed is None else position[s.freed]) if 0 <= s.born else
        replace(s, freed=None if s.freed is None else position[s.freed])
        for s in storages[: len(graph.storages)]
    ]  # fmt: skip
    added = [replace(s, freed=None if s.freed is None else position[s.freed]) for s in storages[len(graph.storages) :]]
    return OpGraph(graph.name, graph.mode, tuple(ops), tuple(tensors), parameters, (*moved, *added))


def _local_info(info: TensorInfo, state: State, parts: int) -> TensorInfo:
    return replace(info, shape=local(info.shape, state, parts)) if isinstance(state, Axis) else info


def _storage_ratios(graph: OpGraph, tensors: list[TensorInfo]) -> dict[int, float]:
    """Share of each storage that one device holds: by the largest of the tensors in it."""
    full: dict[int, int] = {}
    part: dict[int, int] = {}
    for info, here in zip(graph.tensors, tensors, strict=True):
        full[info.storage] = max(full.get(info.storage, 0), info.bytes)
        part[info.storage] = max(part.get(info.storage, 0), here.bytes)
    return {s: part[s] / full[s] for s in full if full[s]}


def _local_op(op: Op, share: float, graph: OpGraph, tensors: list[TensorInfo], renamed: dict[int, int]) -> Op:
    inputs = tuple(renamed.get(i, i) for i in op.inputs)
    changed = share < 1 or any(tensors[i].shape != graph.tensors[i].shape for i in (*op.inputs, *op.outputs))
    if not changed:
        return replace(op, inputs=inputs) if inputs != op.inputs else op
    divided = [graph.tensors[i].shape for i in op.outputs if tensors[i].shape != graph.tensors[i].shape]
    read = []
    for old, new in zip(op.inputs, inputs, strict=True):
        # a whole operand as large as the result is cut for free; a matrix, a bias or a mask is read whole
        is_cut = share < 1 and op.category != "matmul" and tensors[new].shape == graph.tensors[old].shape in divided
        read.append(tensors[new].bytes * (share if is_cut else 1.0))
    reads = _share_left(op.read_bytes, read, [float(graph.tensors[i].bytes) for i in op.inputs])
    writes = _ratio([tensors[i].bytes for i in op.outputs], [graph.tensors[i].bytes for i in op.outputs])
    # a bias that is added to summands of which every device has all is added whole
    is_summand = op.category == "matmul" and len(op.inputs) > 2 and not divided
    added = float(sum(tensors[i].elements for i in op.outputs)) if is_summand else 0.0
    attributes = dict(op.attributes)
    if "size" in attributes and len(op.outputs) == 1:
        attributes["size"] = list(tensors[op.outputs[0]].shape)
    if not op.inputs or (op.category == "gather" and "backward" not in op.name):
        reads = writes  # a gather reads the rows that it gives, whatever the size of the table
    return replace(
        op,
        inputs=inputs,
        flop=None if op.flop is None else (op.flop - added) * share + added,
        read_bytes=op.read_bytes * reads,
        written_bytes=op.written_bytes * (writes if op.outputs else reads),
        attributes=attributes,
    )


def _share_left(total: float, parts: Sequence[float], wholes: Sequence[float]) -> float:
    """Share of `total` that is still read: less what is cut off; of operands that repeat, in proportion."""
    if total <= 0:
        return 1.0
    if total >= math.fsum(w for p, w in zip(parts, wholes, strict=True) if p < w):
        return (total - math.fsum(w - p for p, w in zip(parts, wholes, strict=True))) / total
    return _ratio(parts, wholes)


def _ratio(part: Iterable[float], whole: Iterable[float]) -> float:
    total = math.fsum(whole)
    return math.fsum(part) / total if total else 1.0


def _collective_op(
    c: Collective, near: Op, graph: OpGraph, tensors: list[TensorInfo], storages: list[Storage],
    renamed: dict[int, int], group: int, per_node: int, at: int,
) -> Op:  # fmt: skip
    """The collective as an operator; its result is a new value, for a gather in new memory."""
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    if c.tensor is not None:
        here, whole = tensors[c.tensor], graph.tensors[c.tensor]
        storage = here.storage
        if c.kind == "all_gather" and graph.storages:
            old = storages[here.storage]
            storage = len(storages)
            storages.append(Storage(whole.bytes, "activation", at, old.freed))
        elif c.kind == "all_gather":
            storage = 1 + max(t.storage for t in tensors)
        inputs, outputs = (renamed.get(c.tensor, c.tensor),), (len(tensors),)
        tensors.append(replace(whole, storage=storage))
        renamed[c.tensor] = outputs[0]
    return collective(c.kind, c.bytes, group, per_node, near, inputs, outputs)


def collective(
    kind: str, count: float, group: int, per_node: int, near: Op,
    inputs: tuple[int, ...] = (), outputs: tuple[int, ...] = (),
) -> Op:  # fmt: skip
    """A collective as an operator in the module and phase of `near`. count: bytes of the whole tensor."""
    attributes: dict[str, Any] = {"bytes": count, "group": group, "per_node": per_node}
    return Op(
        f"gnomon.{kind}", near.module, near.module_type, near.phase, "collective", inputs, outputs, 0.0, count, count,
        attributes,
    )  # fmt: skip
