"""Tensor parallelism by data flow: Megatron's rewriting (Shoeybi et al. 2019, arXiv 1909.08053) without any names.

A product with a parameter whose other operand is whole is tried as column-parallel. Where its divided columns arrive at
the inner axis of another product with a parameter, that one becomes row-parallel and its result a sum over devices.
Columns that meet an operator which needs them whole (a normalization, a softmax over them, heads that the degree does
not divide) are refused, and the walk starts anew without them. The backward pass needs no rules of its own: the
gradients find the parameters divided, and the sums appear where Megatron puts them. Embedding tables that tokens of the
input look up, and a last product that is wider than its input (the vocabulary), are divided along the vocabulary.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from gnomon.core.errors import UsageError
from gnomon.forecast.parallel.axis import Axis
from gnomon.forecast.parallel.divide import Collective, Division, is_linear, propagate, shrunk, start
from gnomon.forecast.parallel.rules import PERMUTES, RESHAPES, SAME, Conflict, Meeting, operands, permutation
from gnomon.workload.graph import Op, OpGraph

_FLOAT_BYTES = 4  # a row's largest value and its sum are kept in float32
_COPIES = SAME | RESHAPES | PERMUTES


class Split(NamedTuple):
    """What one device of the group runs, and what was left whole. pairs: products that were cut along their rows."""

    graph: OpGraph
    remarks: tuple[str, ...]
    pairs: int


class _Parameter(NamedTuple):
    base: int  # tensor index of the parameter itself
    dims: tuple[int, ...]  # which of its dims each dim of this view is


class _Refusal(NamedTuple):
    module: str
    needs: int  # what the degree would have to divide; 0: no degree would do


def tensor_parallel(graph: OpGraph, degree: int, per_node: int | None = None) -> Split:
    """The graph of one of `degree` devices that share every layer. per_node: how many of them are in one node.

    Raises UsageError when nothing can be divided, naming what the degree would have to divide.
    """
    if degree < 1:
        raise UsageError(f"wanted a tensor-parallel degree of at least 1; got {degree}")
    if degree == 1:
        return Split(graph, (), 0)
    refused: dict[int, _Refusal] = {}
    state: dict[int, Axis] = {}
    while True:
        walk = _Walk(graph, degree, refused, state)
        walk.run()
        found = walk.refused | walk.open_ends()
        if found != refused:
            refused, state = found, {}
        elif walk.placed != state:
            state = walk.placed  # optimizer state follows its parameter from the first operator on
        else:
            break
    if not walk.rows:
        raise UsageError(_nothing(degree, refused))
    parameters = graph.parameters - sum(
        math.prod(graph.tensors[base].shape) * (degree - 1) // degree for base in walk.cut_parameters()
    )
    return Split(shrunk(walk.division, degree, per_node or degree, parameters), walk.remarks(), len(walk.rows))


class _Walk:
    """One pass over the operators. refused: parameters that may not be cut along their columns."""

    def __init__(
        self, graph: OpGraph, degree: int, refused: dict[int, _Refusal], optimizer_state: dict[int, Axis]
    ) -> None:
        self.graph, self.degree, self.refused = graph, degree, dict(refused)
        self.division: Division = start(graph, degree)
        self.placed: dict[int, Axis] = {}
        self.rows: set[int] = set()  # parameters cut along their inner axis
        self._origins: list[frozenset[int]] = [frozenset()] * len(graph.tensors)
        self._columns: dict[int, str] = {}  # parameters cut along their columns -> module
        self._wide: set[int] = set()
        self._closed: set[int] = set()
        self._parameter: dict[int, _Parameter] = {}
        self._views: dict[int, list[int]] = {}
        self._tables: dict[tuple[int, ...], Axis] = {}
        self._reduced: dict[tuple[int, ...], Axis] = {}
        self._gathered: set[str] = set()
        self._first: dict[int, int] = {}
        for i, info in enumerate(graph.tensors):
            if info.role in ("parameter", "optimizer_state", "buffer"):
                self._first.setdefault(info.storage, i)
            if info.role == "parameter" and self._first.get(info.storage) == i:
                self._learn(i, _Parameter(i, tuple(range(len(info.shape)))))
        for tensor, axis in optimizer_state.items():
            self.division.states[tensor] = axis
            self.placed[tensor] = axis

    def run(self) -> None:
        for i, op in enumerate(self.graph.ops):
            self._meet(i, op)
        if self.graph.mode == "inference":
            ends = [t for t, _ in self._ends()]
            self.division.make_whole(ends, len(self.graph.ops))
            self._gathered |= {self.graph.ops[-1].module for t in ends if isinstance(self.division.states[t], Axis)}

    def cut_parameters(self) -> Iterable[int]:
        return [p.base for i, p in self._parameter.items() if i == p.base and self.division.states[i] is not None]

    def open_ends(self) -> dict[int, _Refusal]:
        """Columns that arrived at no second product, unless they are a vocabulary: wider than what they came from."""
        idle = [base for base in self._columns if base not in self._closed | self._wide | self.refused.keys()]
        return {base: _Refusal(self._columns[base], 0) for base in idle}

    def remarks(self) -> tuple[str, ...]:
        def listed(modules: Iterable[str]) -> str:
            names = sorted({module or "(root)" for module in modules})
            return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

        told = []
        sizes = sorted({r.needs for r in self.refused.values() if r.needs})
        if sizes:
            modules = [r.module for r in self.refused.values() if r.needs]
            told.append(
                f"tensor parallel: {listed(modules)} left whole: {self.degree} does not divide "
                + ", ".join(map(str, sizes))
            )
        rest = [r.module for r in self.refused.values() if not r.needs]
        if rest:
            told.append(f"tensor parallel: {listed(rest)} left whole: no second product takes their columns")
        if self._gathered:
            told.append(f"tensor parallel: what {listed(self._gathered)} gives is gathered")
        return tuple(told)

    # One operator -----------------------------------------------------------------------------------------------------

    def _meet(self, i: int, op: Op) -> None:
        division = self.division
        meeting = division.meeting(op)
        states = [s for s in meeting.states if s is not None]
        if "partial" in states and not is_linear(meeting.name, list(meeting.states)):
            division.make_whole([t for t in op.inputs if division.state(t) == "partial"], i)
            meeting = division.meeting(op)
            states = [s for s in meeting.states if s is not None]
        self._follow_parameter(op, meeting)
        origins = frozenset().union(*(self._origins[t] for t in op.inputs if division.state(t) is not None))
        if "partial" in states:
            for tensor in op.outputs:
                division.states[tensor] = "partial"
            return
        if self._starts(i, op, meeting):
            return
        if not states:
            return
        try:
            result = propagate(division, op)
            if op.category == "reduction" and op.phase == "forward" and result.outputs == ["partial"]:
                self._must_be_a_loss(meeting)
        except Conflict as conflict:
            self._refuse(i, op, origins, conflict.needs)
            return
        if result.rows_summed:
            bytes_summed = 2.0 * _FLOAT_BYTES * result.rows_summed
            division.collectives.append(Collective(i, "all_reduce", None, bytes_summed))
        division.set_outputs(op, result)
        division.share[i] = 1 / self.degree
        self._remember_reduction(op, meeting)
        for tensor in op.outputs:
            self._origins[tensor] = origins
        self._adopt(op, meeting)

    def _starts(self, i: int, op: Op, meeting: Meeting) -> bool:
        """Operators that divide something anew: products and tables with a parameter, gradients of a reduction."""
        if op.category == "matmul":
            return self._product(i, op, meeting)
        if meeting.name == "embedding" and op.phase == "forward":
            return self._table(i, op, meeting)
        if meeting.name == "embedding_dense_backward":
            axis = self._tables.get(meeting.outputs[0])
            if axis is None:
                return False
            self.division.states[op.outputs[0]] = axis
            return True
        if op.phase == "backward" and meeting.name == "expand" and meeting.outputs[0] in self._reduced:
            self.division.states[op.outputs[0]] = self._reduced[meeting.outputs[0]]
            self.division.share[i] = 1 / self.degree
            return True
        return False

    def _product(self, i: int, op: Op, meeting: Meeting) -> bool:
        """Column-parallel where the other operand is whole, row-parallel where it is divided along the inner axis."""
        left, right = operands(meeting)
        weight = self._parameter.get(op.inputs[right])
        if weight is None or self.division.state(op.inputs[right]) is not None or op.phase != "forward":
            return False
        shape, state = meeting.shapes[right], meeting.states[left]
        inner, column = (
            (len(shape) - 1, len(shape) - 2) if meeting.name == "linear" else (len(shape) - 2, len(shape) - 1)
        )
        if state is None:
            if weight.base in self.refused or len(shape) != 2:
                return False
            if shape[column] % self.degree:
                self.refused[weight.base] = _Refusal(op.module, shape[column])
                return False
            self._cut(weight, Axis(column, 1, shape[column]))
            self._columns[weight.base] = op.module
            if shape[column] > shape[inner]:
                self._wide.add(weight.base)
            output = meeting.outputs[0]
            self._divided(i, op, Axis(len(output) - 1, 1, output[-1]), frozenset({weight.base}))
            self._bias(op, meeting, output[-1])
            return True
        if isinstance(state, Axis) and state.dim == len(meeting.shapes[left]) - 1:
            self._cut(weight, Axis(inner, state.outer, state.extent))
            self.rows.add(weight.base)
            self._closed |= self._origins[op.inputs[left]]
            self.division.states[op.outputs[0]] = "partial"
            self.division.share[i] = 1 / self.degree
            return True
        return False

    def _bias(self, op: Op, meeting: Meeting, columns: int) -> None:
        for tensor, shape in zip(op.inputs, meeting.shapes, strict=True):
            parameter = self._parameter.get(tensor)
            if parameter is not None and shape == (columns,):
                self._cut(parameter, Axis(0, 1, columns))

    def _table(self, i: int, op: Op, meeting: Meeting) -> bool:
        """A table that the input's tokens look up is cut by its rows; every device adds what it has."""
        weight = self._parameter.get(op.inputs[0])
        rows = meeting.shapes[0][0]
        if weight is None or self.graph.tensors[op.inputs[1]].role != "input" or rows % self.degree:
            return False
        axis = Axis(0, 1, rows)
        self._cut(weight, axis)
        self._tables[meeting.shapes[0]] = axis
        self.division.states[op.outputs[0]] = "partial"
        return True

    def _divided(self, i: int, op: Op, axis: Axis, origins: frozenset[int]) -> None:
        self.division.share[i] = 1 / self.degree
        for tensor in op.outputs:
            self.division.states[tensor] = axis
            self._origins[tensor] = origins

    def _must_be_a_loss(self, meeting: Meeting) -> None:
        """Statistics of rows whose columns are divided would need a sum over devices in every normalization."""
        if math.prod(meeting.outputs[0]) > 1:
            raise Conflict

    def _refuse(self, i: int, op: Op, origins: frozenset[int], needs: int) -> None:
        """In the forward pass the columns stay whole after all; later, what is divided is gathered."""
        if op.phase == "forward" and origins:
            for base in origins:
                self.refused.setdefault(base, _Refusal(self._columns.get(base, op.module), needs))
            return
        divided = [t for t in op.inputs if isinstance(self.division.state(t), Axis)]
        self.division.make_whole(divided, i)
        self._gathered.add(op.module)

    # Parameters, their views, and what belongs to them ----------------------------------------------------------------

    def _learn(self, tensor: int, parameter: _Parameter) -> None:
        self._parameter[tensor] = parameter
        self._views.setdefault(parameter.base, []).append(tensor)
        axis = self.division.states[parameter.base]
        if isinstance(axis, Axis):
            self.division.states[tensor] = axis._replace(dim=parameter.dims.index(axis.dim))

    def _follow_parameter(self, op: Op, meeting: Meeting) -> None:
        """A transposed, cast or updated parameter is still that parameter."""
        if len(op.inputs) < 1 or len(op.outputs) != 1 or op.phase != "forward":
            return
        known = self._parameter.get(op.inputs[0])
        if known is None or meeting.name not in _COPIES:
            return
        if meeting.name in PERMUTES:
            order = permutation(meeting.name, op.attributes, len(meeting.shapes[0]))
            self._learn(op.outputs[0], _Parameter(known.base, tuple(known.dims[d] for d in order)))
        elif meeting.shapes[0] == meeting.outputs[0]:
            self._learn(op.outputs[0], known)

    def _cut(self, parameter: _Parameter, axis: Axis) -> None:
        """Divide a parameter, given the axis of one of its views, and all views that were made of it."""
        base = parameter.dims[axis.dim]
        for view in self._views[parameter.base]:
            dims = self._parameter[view].dims
            self.division.states[view] = axis._replace(dim=dims.index(base))

    def _adopt(self, op: Op, meeting: Meeting) -> None:
        """What is added to or updated with something divided, and was there before the step, is divided with it."""
        made = next((self.division.states[t] for t in op.outputs), None)
        if not isinstance(made, Axis) or op.category not in ("elementwise", "optimizer", "copy"):
            return
        output = meeting.outputs[0]
        for tensor, shape, state in zip(op.inputs, meeting.shapes, meeting.states, strict=True):
            dim = made.dim - (len(output) - len(shape))
            if state is not None or dim < 0 or shape[dim] != output[made.dim]:
                continue
            info = self.graph.tensors[tensor]
            if info.role == "parameter" and tensor in self._parameter:
                self._cut(self._parameter[tensor], made._replace(dim=dim))
            elif info.role == "optimizer_state":
                self.placed[self._first[info.storage]] = made._replace(dim=dim)

    def _remember_reduction(self, op: Op, meeting: Meeting) -> None:
        if op.phase == "forward" and self.division.states[op.outputs[0]] == "partial" and op.category == "reduction":
            self._reduced.update(
                (shape, state)
                for shape, state in zip(meeting.shapes, meeting.states, strict=True)
                if isinstance(state, Axis)
            )

    def _ends(self) -> list[tuple[int, Op]]:
        """Values that nobody takes: what the step returns."""
        taken = {tensor for op in self.graph.ops for tensor in op.inputs}
        storages = self.graph.storages
        return [
            (tensor, op)
            for op in self.graph.ops
            for tensor in op.outputs
            if tensor not in taken and self.division.state(tensor) is not None
            if not storages or storages[self.graph.tensors[tensor].storage].freed is None
        ]


def _nothing(degree: int, refused: dict[int, _Refusal]) -> str:
    sizes = sorted({r.needs for r in refused.values() if r.needs})
    if sizes:
        return (
            f"a tensor-parallel degree of {degree} divides none of the widths and heads that could be divided: "
            f"{', '.join(map(str, sizes))}. Choose a divisor of one of them, such as {_divisors(sizes)}"
        )
    return (
        f"nothing to divide among {degree} devices: wanted two products with parameters whose data flow from one to "
        "the other through operators that act on columns or heads. Leave out the tensor-parallel degree"
    )


def _divisors(sizes: list[int]) -> str:
    common = math.gcd(*sizes)
    found = [d for d in range(2, min(common, 64) + 1) if common % d == 0]
    return ", ".join(map(str, found[:6])) if found else str(sizes[0])
