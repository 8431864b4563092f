"""The kernels that TorchInductor would make of a graph: chains of memory-bound operators become one operator each.

What is fused follows Inductor's scheduler (torch/_inductor/scheduler.py): pointwise operators join what produces or
consumes their elements, before and after reductions over the same rows; pointwise operators that read the same tensor
go side by side; nothing is fused into a matrix product, convolution, attention or collective, as templates are off by
default. What Inductor decides by more than shapes (heavy recomputation, tiling, registers) is not here. An operator of
ours may be several loops of Inductor's: the backward pass of a normalisation reduces over rows and over columns.

Groups are kept free of cycles: two join only if nothing outside lies between them.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gnomon.workload.graph import Category, Op, OpGraph, Storage, TensorInfo
from gnomon.workload.memory import lifetimes, peak

FUSED = "fused["
LARGEST = 64  # operators of one kernel: torch._inductor.config.max_fusion_size
_NEIGHBOURS = 8  # readers of a tensor that are tried for a fusion side by side
_GATHERS = {"embedding", "index", "index_select", "gather", "take", "take_along_dim", "_unsafe_index"}
# data decides what follows: Dynamo ends one compiled graph here and starts another
_BREAKS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2"}
_STREAMS: frozenset[Category] = frozenset(("elementwise", "copy", "random", "gather"))
_ROWS: frozenset[Category] = frozenset(("reduction", "softmax", "normalization"))
_SHOWN = 4  # names in a fused operator's name
_RANDOM_STATE = -1  # a storage that every random operator reads and writes


class Space(NamedTuple):
    """What a kernel loops over: rows, and the elements that each row reduces (1: no reduction)."""

    rows: int
    length: int

    @property
    def size(self) -> int:
        return self.rows * self.length


class _Part(NamedTuple):
    storage: int
    tensor: int | None


def fuse(graph: OpGraph) -> OpGraph:
    """`graph` with the operators that a compiled step would run.

    A fused operator is called 'fused[add+gelu+...]' and has the category of its dominant member, the sum of their FLOP,
    and the traffic of what goes in and comes out: what only its members see is never in memory. Views vanish. FLOP and
    results stay as they are; neither traffic nor peak memory grows. A graph that was fused comes back as it is.
    """
    if any(op.name.startswith(FUSED) for op in graph.ops):
        return graph
    fusion = _Fusion(graph)
    fusion.run()
    limit = peak(graph).peak_bytes
    while True:
        order = fusion.order()
        fused = fusion.graph_of(order)
        memory = peak(fused)
        if memory.peak_bytes <= limit or memory.peak_at is None or not fusion.dissolve(order[memory.peak_at]):
            return fused


@dataclass(slots=True)
class _Group:
    """Operators that become one. before: direct dependencies. above: all groups this depends on, as bits."""

    members: list[int]
    space: Space | None  # None: fuses with nothing
    part: tuple[str, int]  # phase, and the number of graph breaks before
    before: set[int] = field(default_factory=set)
    above: int = 0


class _Fusion:
    """Groups of operators, by the index of their first member."""

    def __init__(self, graph: OpGraph) -> None:
        self._graph = graph
        self._storages = graph.storages or lifetimes(graph)
        numbers = range(len(graph.storages)) if graph.storages else sorted({t.storage for t in graph.tensors})
        self._storage = dict(zip(numbers, self._storages, strict=True))
        self._groups: dict[int, _Group] = {}
        self._home: dict[int, int] = {}  # operator -> group
        self._before: dict[int, set[int]] = {}  # operator -> operators that must run earlier
        self._reads, self._writes = _accesses(graph)
        self._users: dict[int, list[int]] = defaultdict(list)
        for i in self._reads:
            for storage in self._reads[i]:
                self._users[storage].append(i)

    def run(self) -> None:
        """Visit operators in order: each joins the groups that it shares most with, if they may become one."""
        graph, breaks, barrier = self._graph, 0, None
        last_write: dict[int, int] = {}
        readers: dict[int, list[int]] = defaultdict(list)
        for i, op in enumerate(graph.ops):
            if op.category == "view":
                continue
            needs = {last_write[s] for s in self._reads[i] | self._writes[i] if s in last_write}
            needs |= {r for s in self._writes[i] for r in readers[s]}
            if barrier is not None:
                needs.add(barrier)
            is_break = _base(op) in _BREAKS
            if is_break:
                needs |= set(self._home)
                breaks, barrier = breaks + 1, i
            needs.discard(i)
            space = None if is_break or op.phase == "optimizer" else _space(op, graph)
            self._place(i, _Group([i], space, (op.phase, breaks)), needs)
            if space is not None:
                for other in self._candidates(i, needs, readers):
                    self._try(self._home[i], self._home[other])
            for s in self._reads[i]:
                readers[s].append(i)
            for s in self._writes[i]:
                last_write[s], readers[s] = i, []

    def _place(self, i: int, group: _Group, needs: set[int]) -> None:
        self._before[i] = needs
        group.before = {self._home[n] for n in needs}
        for home in group.before:
            group.above |= self._groups[home].above | 1 << home
        self._groups[i], self._home[i] = group, i

    def _candidates(self, i: int, needs: set[int], readers: dict[int, list[int]]) -> list[int]:
        """Producers first, those that give most at the front; then others that read what this one reads."""
        given: dict[int, int] = defaultdict(int)
        for n in needs:
            given[n] = sum(self._size(s) for s in self._writes[n] & self._reads[i])
        beside = [r for s in self._reads[i] if s != _RANDOM_STATE for r in readers[s][-_NEIGHBOURS:]]
        return [*sorted((n for n in given if given[n]), key=lambda n: (-given[n], -n)), *sorted(set(beside) - {i})]

    def _size(self, storage: int) -> int:
        return self._storage[storage].bytes if storage in self._storage else 0

    def _try(self, one: int, other: int) -> None:
        if one == other:
            return
        first, second = sorted((one, other))
        a, b = self._groups[first], self._groups[second]
        if a.space is None or b.space is None or a.part != b.part or len(a.members) + len(b.members) > LARGEST:
            return
        space = _joined(a.space, b.space)
        for small, large in ((a, b), (b, a)):
            if space is None and self._feeds_only(small, large):
                space = _broadcast(small.space, large.space)
        if space is None or self._is_between(first, second) or self._is_between(second, first):
            return
        self._merge(first, second, space)

    def _feeds_only(self, a: _Group, b: _Group) -> bool:
        """Whether nobody but `b` takes what `a` makes."""
        made = set().union(*(self._writes[i] for i in a.members))
        inside = {*a.members, *b.members}
        return all(self._is_temporary(s) and all(user in inside for user in self._users[s]) for s in made)

    def _is_between(self, one: int, other: int) -> bool:
        """Whether a third group depends on `one` and is needed by `other`."""
        return any(self._groups[p].above >> one & 1 for p in self._groups[other].before if p != one)

    def _merge(self, first: int, second: int, space: Space) -> None:
        a, b = self._groups[first], self._groups.pop(second)
        a.members, a.space = sorted(a.members + b.members), space
        for i in b.members:
            self._home[i] = first
        both = 1 << first | 1 << second
        a.before = (a.before | b.before) - {first, second}
        a.above = (a.above | b.above) & ~both
        for group in self._groups.values():
            if group is not a and group.above & both:
                group.above = group.above & ~(1 << second) | a.above | 1 << first
                if second in group.before:
                    group.before = (group.before - {second}) | {first}

    def dissolve(self, at: _Group) -> bool:
        """Take apart `at`, or the group that reaches farthest across it; False when every group is one operator."""
        wide = [g for g in self._groups.values() if len(g.members) > 1]
        if not wide:
            return False
        across = [g for g in wide if g.members[0] <= at.members[-1] and g.members[-1] >= at.members[0]]
        group = max(across or wide, key=lambda g: (g is at, g.members[-1] - g.members[0], g.members[0]))
        del self._groups[group.members[0]]
        for i in group.members:
            self._groups[i], self._home[i] = _Group([i], None, group.part), i
        for g in self._groups.values():
            g.before = {self._home[n] for i in g.members for n in self._before[i]} - {g.members[0]}
        return True

    def order(self) -> list[_Group]:
        """Every group after those that it needs; among the ready ones that whose last member ran first."""
        left = {key: len(group.before) for key, group in self._groups.items()}
        after: dict[int, list[int]] = defaultdict(list)
        for key, group in self._groups.items():
            for p in group.before:
                after[p].append(key)
        ready = [(self._groups[key].members[-1], key) for key, count in left.items() if count == 0]
        heapq.heapify(ready)
        done: list[_Group] = []
        while ready:
            _, key = heapq.heappop(ready)
            done.append(self._groups[key])
            for follower in after[key]:
                left[follower] -= 1
                if left[follower] == 0:
                    heapq.heappush(ready, (self._groups[follower].members[-1], follower))
        assert len(done) == len(self._groups), "groups form a cycle"
        return done

    # The new graph --------------------------------------------------------------------------------------------------

    def graph_of(self, order: Sequence[_Group]) -> OpGraph:
        """The graph in which each group is one operator, without the tensors that no operator touches any more."""
        ops = [self._graph.ops[g.members[0]] if len(g.members) == 1 else self._fused(g.members) for g in order]
        return _compact(self._graph, ops, self._storage)

    def _fused(self, members: Sequence[int]) -> Op:
        graph, inside = self._graph, set(members)
        made: set[int] = set()
        seen: set[_Part] = set()
        stored: set[_Part] = set()
        read = written = 0.0
        inputs: dict[int, None] = {}
        outputs: dict[int, int] = {}  # storage -> the newest tensor there
        for i in members:
            op = graph.ops[i]
            left = op.read_bytes
            for t in dict.fromkeys(op.inputs):
                storage, part = graph.tensors[t].storage, self._part(t)
                if storage in made or part in seen:  # in registers: it was made, or read, a moment ago
                    left -= min(left, self._bytes(graph.tensors[t]))
                if storage not in made:
                    inputs[t] = None
                seen.add(part)
            read += left
            kept = op.written_bytes
            for t in op.outputs:
                storage = graph.tensors[t].storage
                is_dead = self._is_temporary(storage) and all(u in inside for u in self._users[storage])
                if is_dead or self._part(t) in stored:  # nobody outside sees it, or it is written once for all members
                    kept -= min(kept, self._bytes(graph.tensors[t]))
                if not is_dead:
                    outputs[storage] = t
                made.add(storage)
                stored.add(self._part(t))
            written += kept
        ops = [graph.ops[i] for i in members]
        main = max(ops, key=lambda op: (op.category in _ROWS, op.moved_bytes))
        modules = [op.module for op in ops]
        return Op(
            name=_name(ops),
            module=_common(modules),
            module_type=main.module_type if len(set(modules)) == 1 else "",
            phase=main.phase,
            category=main.category,
            inputs=tuple(inputs),
            outputs=tuple(outputs.values()),
            flop=math.fsum(op.flop or 0.0 for op in ops),
            read_bytes=read,
            written_bytes=written,
            attributes={"operators": len(ops)},
        )

    def _part(self, t: int) -> "_Part":
        """What memory a tensor is: all of its storage, or a part that only this tensor is known to be."""
        info = self._graph.tensors[t]
        return _Part(info.storage, None if info.bytes >= self._size(info.storage) else t)

    def _bytes(self, info: TensorInfo) -> int:
        """A repeated (expanded) tensor is no larger than its memory."""
        return min(info.bytes, self._size(info.storage) or info.bytes)

    def _is_temporary(self, storage: int) -> bool:
        """Made in this step and given back in it: not a result, a gradient or something that was there before."""
        block = self._storage.get(storage)
        return block is not None and block.born >= 0 and block.freed is not None


def _accesses(graph: OpGraph) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """For every operator that is no view: the storages it reads, and those it writes."""
    reads, writes = {}, {}
    for i, op in enumerate(graph.ops):
        if op.category == "view":
            continue
        reads[i] = {graph.tensors[t].storage for t in op.inputs}
        writes[i] = {graph.tensors[t].storage for t in op.outputs}
        if op.category == "random":
            reads[i].add(_RANDOM_STATE)
            writes[i].add(_RANDOM_STATE)
    return reads, writes


def _base(op: Op) -> str:
    name = op.name.removeprefix("aten.").partition(".")[0]
    return name if name.startswith("_") else name.removesuffix("_")


def _space(op: Op, graph: OpGraph) -> Space | None:
    """What a kernel for this operator loops over; None for one that Inductor leaves to a library or a kernel alone."""
    if op.flop is None or not op.outputs:
        return None
    made = max(graph.tensors[t].elements for t in op.outputs)
    if op.category in _STREAMS:
        if op.category == "gather" and _base(op) not in _GATHERS:
            return None  # scattered writes: what follows must wait for all of them
        return Space(made, 1) if made else None
    if op.category not in _ROWS or not op.inputs:
        return None
    source = max((graph.tensors[t] for t in op.inputs), key=lambda t: t.elements)
    length = _reduced(op, source, made)
    return Space(source.elements // length, length) if length and source.elements % length == 0 else None


def _reduced(op: Op, source: TensorInfo, made: int) -> int:
    """Elements that a row of a reduction has; 0 when it is not known."""
    base, shape = _base(op), source.shape
    if op.category == "reduction":
        return source.elements // made if made else 0
    if op.category == "softmax":
        dim = op.attributes.get("dim", -1)
        return shape[dim] if shape and isinstance(dim, int) and -len(shape) <= dim < len(shape) else 0
    if "batch_norm" in base:
        running = not op.attributes.get("training", op.attributes.get("train", "no_training" not in base))
        channels = shape[1] if len(shape) > 1 else 0
        return 1 if running else source.elements // channels if channels else 0
    if "group_norm" in base:
        groups = op.attributes.get("group", 0) * (shape[0] if shape else 0)
        return source.elements // groups if groups else 0
    normalized = op.attributes.get("normalized_shape")
    return math.prod(normalized) if normalized else shape[-1] if shape else 0


def _joined(a: Space, b: Space) -> Space | None:
    """The loop that does both, or None: as many elements, or a pointwise operator around a reduction."""
    if a.length == 1 and b.length == 1:
        return a if a.rows == b.rows else None
    if a.length > 1 and b.length > 1:
        return a if a == b else None
    pointwise, rows = (a, b) if a.length == 1 else (b, a)
    return rows if pointwise.rows in (rows.size, rows.rows) else None


def _broadcast(small: Space | None, large: Space | None) -> Space | None:
    """A pointwise producer whose elements are repeated in the consumer is computed again where it is used."""
    if small is None or large is None:
        return None
    return large if small.length == 1 and small.rows < large.size and large.size % small.rows == 0 else None


def _name(ops: Sequence[Op]) -> str:
    names = list(dict.fromkeys(_base(op) for op in ops))
    return FUSED + "+".join(names[:_SHOWN]) + ("+\N{HORIZONTAL ELLIPSIS}" if len(names) > _SHOWN else "") + "]"


def _common(paths: Iterable[str]) -> str:
    """The module that holds them all."""
    split = [path.split(".") for path in paths]
    same = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        same.append(parts[0])
    return ".".join(same)


def _compact(graph: OpGraph, ops: Sequence[Op], blocks: dict[int, Storage]) -> OpGraph:
    """The graph of `ops`: memory that they do not touch and that the step itself allocated is gone."""
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    touched = set()
    for i, op in enumerate(ops):
        for t in (*op.inputs, *op.outputs):
            touched.add(t)
            first.setdefault(graph.tensors[t].storage, i)
            last[graph.tensors[t].storage] = i
    kept = [s for s in sorted(blocks) if s in last or blocks[s].born < 0 or blocks[s].freed is None]
    new_storage = {s: n for n, s in enumerate(kept)}
    storages = []
    for s in kept:
        block = blocks[s]
        born = block.born if block.born < 0 else first.get(s, 0)
        freed = None if block.freed is None else last.get(s, -1) + 1
        storages.append(replace(block, born=born, freed=freed))
    tensors = [t for t, info in enumerate(graph.tensors) if t in touched or blocks[info.storage].born < 0]
    new_tensor = {t: n for n, t in enumerate(tensors)}
    return replace(
        graph,
        ops=tuple(
            replace(
                op, inputs=tuple(new_tensor[t] for t in op.inputs), outputs=tuple(new_tensor[t] for t in op.outputs)
            )
            for op in ops
        ),
        tensors=tuple(replace(graph.tensors[t], storage=new_storage[graph.tensors[t].storage]) for t in tensors),
        storages=tuple(storages),
    )
