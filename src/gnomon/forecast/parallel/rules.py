"""How a divided axis passes through an operator, by the operator's kind: never by the name of a module.

The rules are those by which a compiler propagates shardings (Xu et al. 2021, GSPMD, arXiv 2105.04663), for one divided
axis per tensor. Every operand is whole, divided along one axis, or partial (each device holds a summand). A whole
operand may be cut for free; a divided or partial one becomes whole only by a collective, which the caller inserts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from gnomon.forecast.parallel.axis import Axis, agree, cut_at, is_plain, viewed

State = Axis | Literal["partial"] | None  # None: whole

RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten", "unflatten"}
SAME = {"detach", "alias", "_to_copy", "clone", "contiguous", "lift_fresh", "empty_like", "zeros_like", "ones_like",
        "rand_like", "randn_like", "full_like"}  # fmt: skip
PERMUTES = {"t", "transpose", "permute", "movedim"}
LINEAR = RESHAPES | PERMUTES | {"detach", "alias", "_to_copy", "clone", "contiguous"}  # partial sums stay partial sums
_SHIFTS = {"slice_backward", "select_backward", "slice_scatter", "select_scatter"}


class Conflict(Exception):
    """The operator cannot take the axis. needs: what the degree would have to divide, 0 when no degree would do."""

    def __init__(self, needs: int = 0) -> None:
        super().__init__(needs)
        self.needs = needs


class Meeting(NamedTuple):
    """One operator with what it meets: shapes and states of inputs and outputs' shapes, in order."""

    name: str  # 'addmm' of 'aten.addmm.default'
    category: str
    shapes: Sequence[tuple[int, ...]]
    states: Sequence[State]
    outputs: Sequence[tuple[int, ...]]
    attributes: Mapping[str, Any]
    parts: int


class Passed(NamedTuple):
    """States of the outputs; summed: bytes per element row that must be summed over devices on the way (softmax)."""

    outputs: list[State]
    rows_summed: int = 0


def passed(meeting: Meeting) -> Passed:
    """What comes out of an operator of which at least one input is divided. Raises Conflict."""
    m = meeting
    if m.name in RESHAPES:
        return Passed([_reshape(m)])
    if m.name in SAME:
        return Passed([m.states[0]])
    rule = _RULES.get(m.name)
    if rule is not None:
        return rule(m)
    if m.category == "matmul":
        return Passed([product(m)])
    if m.category == "attention":
        return _attention(m)
    if m.category == "normalization":
        return _normalization(m)
    if m.category == "softmax":
        return _softmax(m)
    if m.category == "reduction":
        return Passed([_reduction(m)])
    if m.category in ("elementwise", "random", "copy", "optimizer"):
        return Passed(_elementwise(m))
    if m.category == "sort":
        return Passed(_along(m))
    raise Conflict


def _axis(m: Meeting) -> Axis:
    return next(s for s in m.states if isinstance(s, Axis))


def _axis_of(m: Meeting, index: int) -> Axis | None:
    """The axis of one input, where the other inputs are whole or have none."""
    state = m.states[index]
    return state if isinstance(state, Axis) else None


def _reshape(m: Meeting) -> State:
    axis = _axis(m)
    found = viewed(axis, m.shapes[0], m.outputs[0], m.parts)
    if found is None:
        raise Conflict(cut_at(axis, m.shapes[0], m.outputs[0]))
    return found


def _permute(m: Meeting) -> Passed:
    axis, order = _axis(m), permutation(m.name, m.attributes, len(m.shapes[0]))
    return Passed([axis._replace(dim=order.index(axis.dim))])


def permutation(name: str, attributes: Mapping[str, Any], ndim: int) -> list[int]:
    """Which old dim each new dim is."""
    order = list(range(ndim))
    if name == "t":
        return order[::-1]
    if name == "transpose":
        a, b = attributes["dim0"] % ndim, attributes["dim1"] % ndim
        order[a], order[b] = order[b], order[a]
        return order
    if name == "permute":
        return [d % ndim for d in attributes["dims"]]
    raise Conflict


def _expand(m: Meeting) -> Passed:
    axis = _axis(m)
    return Passed([axis._replace(dim=axis.dim + len(m.outputs[0]) - len(m.shapes[0]))])


def _pieces(m: Meeting) -> Passed:
    """split, slice, select, unbind: along another dim the axis stays; columns may be dealt out piece by piece."""
    axis, shape = _axis(m), m.shapes[0]
    dim = m.attributes.get("dim", 0) % len(shape)
    if dim != axis.dim:
        gone = m.name in ("select", "unbind") and dim < axis.dim
        return Passed([axis._replace(dim=axis.dim - gone) for _ in m.outputs])
    if m.name in ("select", "unbind"):
        raise Conflict
    if not is_plain(axis, shape):
        raise Conflict
    sizes = [output[dim] for output in m.outputs]
    return Passed([Axis(dim, 1, _divisible(size, m.parts)) for size in sizes])


def _divisible(size: int, parts: int) -> int:
    if size % parts:
        raise Conflict(size)
    return size


def _cat(m: Meeting) -> Passed:
    dim = m.attributes.get("dim", 0) % len(m.outputs[0])
    axes = [s for s in m.states if isinstance(s, Axis)]
    if axes[0].dim != dim:
        found = agree(axes)
        if found is None:
            raise Conflict
        return Passed([found])
    if len(axes) < len(m.states) or any(a.outer != 1 for a in axes):
        raise Conflict
    return Passed([Axis(dim, 1, m.outputs[0][dim])])


def _shift(m: Meeting) -> Passed:
    """A slice's gradient, padded with zeros to where it came from."""
    axis, output = _axis(m), m.outputs[0]
    dim = m.attributes.get("dim", 0) % len(output)
    if m.name.startswith("select"):
        return Passed([axis._replace(dim=axis.dim + (dim <= axis.dim))])
    if dim != axis.dim:
        return Passed([axis])
    if not is_plain(axis, m.shapes[0]):
        raise Conflict
    return Passed([Axis(dim, 1, _divisible(output[dim], m.parts))])


def _elementwise(m: Meeting) -> list[State]:
    """Operands meet right-aligned, as broadcasting has it; a whole operand is cut for free."""
    outputs: list[State] = []
    for output in m.outputs:
        moved = []
        for shape, state in zip(m.shapes, m.states, strict=True):
            if isinstance(state, Axis):
                dim = state.dim + len(output) - len(shape)
                if dim < 0 or output[dim] != shape[state.dim]:
                    raise Conflict
                moved.append(state._replace(dim=dim))
        found = agree(moved)
        if found is None:
            raise Conflict
        for shape, state in zip(m.shapes, m.states, strict=True):
            dim = found.dim - (len(output) - len(shape))
            if not isinstance(state, Axis) and dim >= 0 and shape[dim] not in (1, output[found.dim]):
                raise Conflict
        outputs.append(found)
    return outputs


def _along(m: Meeting) -> list[State]:
    """Operators that work along one dim and leave the others alone: cumsum, topk, sort."""
    axis = _axis(m)
    if m.attributes.get("dim", -1) % len(m.shapes[0]) == axis.dim:
        raise Conflict
    if any(len(o) != len(m.shapes[0]) or o[axis.dim] != m.shapes[0][axis.dim] for o in m.outputs):
        raise Conflict
    return [axis for _ in m.outputs]


def reduced_dims(m: Meeting) -> set[int]:
    dims = m.attributes.get("dim")
    ndim = len(m.shapes[0])
    if dims is None or dims == []:
        return set(range(ndim))
    return {d % ndim for d in (dims if isinstance(dims, list) else [dims])}


def _reduction(m: Meeting) -> State:
    if m.name in ("cumsum", "cumprod"):
        return _along(m)[0]
    axis, dims = _axis(m), reduced_dims(m)
    if axis.dim in dims:
        if m.name in ("sum", "mean"):
            return "partial"
        raise Conflict
    if len(m.outputs[0]) == len(m.shapes[0]):
        return axis
    return axis._replace(dim=axis.dim - sum(d < axis.dim for d in dims))


def product(m: Meeting) -> State:
    """(..., M, K) x (..., K, N), with or without something that is added; rows, columns, batch or K may be divided."""
    left, right = operands(m)
    a_shape, b_shape, output = m.shapes[left], m.shapes[right], m.outputs[0]
    a, b = _axis_of(m, left), _axis_of(m, right)
    swapped = m.name == "linear"  # keeps its weight as (N, K)
    k_right, n_right = (len(b_shape) - 1, len(b_shape) - 2) if swapped else (len(b_shape) - 2, len(b_shape) - 1)
    last = len(output) - 1
    ka, kb = a is not None and a.dim == len(a_shape) - 1, b is not None and b.dim == k_right
    if ka or kb:
        if (a is not None and not ka) or (b is not None and not kb) or (a and b and a.outer != b.outer):
            raise Conflict
        return "partial"
    found = []
    if a is not None:  # rows or batch
        found.append(a)
    if b is not None:
        found.append(b._replace(dim=last) if b.dim == n_right else b)
    if not found:  # only what is added is divided: cut the product to it
        return _axis(m)
    both = agree(found)
    if both is None or both.dim > last:
        raise Conflict
    return both


def operands(m: Meeting) -> tuple[int, int]:
    """Positions of the two matrices among the inputs; what comes before them is added, a linear's bias behind."""
    if m.name == "linear":
        return 0, 1
    return len(m.shapes) - 2, len(m.shapes) - 1


def _attention(m: Meeting) -> Passed:
    """By heads or by batch. Key heads that are too few to divide stay whole; each device takes what it needs."""
    axis = agree([s for s in m.states if isinstance(s, Axis)])
    if axis is None or axis.dim > 1:
        raise Conflict
    size = next(shape[axis.dim] for shape, s in zip(m.shapes, m.states, strict=True) if isinstance(s, Axis))
    outputs: list[State] = []
    for output in m.outputs:
        fits = len(output) >= 3 and (output[axis.dim] == size or output[axis.dim] % m.parts == 0)
        outputs.append(axis._replace(extent=min(axis.extent, output[axis.dim])) if fits else None)
    if outputs[0] is None:
        raise Conflict(m.outputs[0][axis.dim])
    return Passed(outputs)


def _normalization(m: Meeting) -> Passed:
    """Rows may be divided, what is normalised together may not; gradients of the weights are then summands."""
    axis, shape = _axis(m), m.shapes[0]
    if "batch_norm" in m.name:
        first = 1
    else:
        first = len(shape) - len(m.attributes.get("normalized_shape", shape[-1:]))
    if axis.dim >= first and "group_norm" not in m.name:
        raise Conflict
    if "group_norm" in m.name and axis.dim > 0:
        raise Conflict
    outputs: list[State] = []
    for output in m.outputs:
        is_row = len(output) > axis.dim and len(output) >= 2 and output[axis.dim] == shape[axis.dim]
        outputs.append(axis if is_row else "partial")
    return Passed(outputs)


def _softmax(m: Meeting) -> Passed:
    """Along the divided axis the largest and the sum of every row are exchanged (vocabulary-parallel loss)."""
    found = _elementwise(m)
    axis = _axis(m)
    if m.attributes.get("dim", -1) % len(m.shapes[0]) != axis.dim:
        return Passed(found)
    return Passed(found, math.prod(m.shapes[0]) // m.shapes[0][axis.dim])


def _nll_forward(m: Meeting) -> Passed:
    return Passed(["partial", *[None for _ in m.outputs[1:]]])


def _nll_backward(m: Meeting) -> Passed:
    for shape, state in zip(m.shapes, m.states, strict=True):
        if isinstance(state, Axis) and shape == m.outputs[0]:
            return Passed([state])
    raise Conflict


def _convolution(m: Meeting) -> Passed:
    """Only images may be divided."""
    axis = _axis(m)
    if axis.dim != 0 or any(isinstance(s, Axis) for s in m.states[1:]):
        raise Conflict
    return Passed([axis])


def _convolution_backward(m: Meeting) -> Passed:
    axis = _axis(m)
    if axis.dim != 0 or not isinstance(m.states[0], Axis):
        raise Conflict
    return Passed([axis if o == m.shapes[1] else "partial" for o in m.outputs])


def _embedding_backward(m: Meeting) -> Passed:
    """Rows of the gradient are divided: every device adds up a table of its own."""
    return Passed(["partial"])


def _embedding(m: Meeting) -> Passed:
    axis = _axis(m)
    if isinstance(m.states[0], Axis):
        raise Conflict
    return Passed([axis])


_RULES: dict[str, Callable[[Meeting], Passed]] = {
    **dict.fromkeys(PERMUTES, _permute),
    "expand": _expand,
    **dict.fromkeys(("split", "split_with_sizes", "slice", "select", "unbind", "chunk", "narrow"), _pieces),
    "cat": _cat,
    **dict.fromkeys(_SHIFTS, _shift),
    "nll_loss_forward": _nll_forward,
    "nll_loss_backward": _nll_backward,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "embedding": _embedding,
    "embedding_dense_backward": _embedding_backward,
}
