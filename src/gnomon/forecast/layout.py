"""What operators read in another order than it lies in memory, followed through the views of a graph.

A graph has shapes, no strides. What counts is whether the last axis was moved: then neighbours in reading are strangers
in memory, while other axes can be exchanged and rows stay whole. A tensor is out of order when the last such view was
not undone; an elementwise operator keeps the order of its first full-sized input, everything else writes in order.
"""

from gnomon.workload.graph import Op, OpGraph, TensorInfo

_REORDERING = ("t", "transpose", "permute")
_SENSITIVE = ("normalization", "softmax", "copy", "pooling")  # products, attention and sums take any order in stride


def strided_bytes(graph: OpGraph) -> list[float]:
    """Bytes of each operator's inputs that it must read out of order."""
    reordered: set[int] = set()
    found = []
    for op in graph.ops:
        name = op.name.removeprefix("aten.").partition(".")[0]
        tensors = [graph.tensors[i] for i in op.inputs]
        strided = 0.0
        keeps = False
        if op.category == "view":
            keeps = bool(op.inputs) and op.inputs[0] in reordered
            if name in _REORDERING and tensors and _moves_last(op, tensors[0]):
                keeps = not keeps
        elif op.category == "elementwise" and op.outputs:
            full = [i for i in op.inputs if graph.tensors[i].elements == graph.tensors[op.outputs[0]].elements]
            keeps = bool(full) and full[0] in reordered
            strided = float(sum(graph.tensors[i].bytes for i in full if (i in reordered) != keeps))
        elif op.category in _SENSITIVE:
            strided = float(sum(graph.tensors[i].bytes for i in op.inputs if i in reordered))
        if keeps:
            reordered.update(op.outputs)
        found.append(strided)
    return found


def _moves_last(op: Op, before: TensorInfo) -> bool:
    """Whether a reordering view puts another axis last; axes of size 1 are nowhere."""
    wide = [axis for axis, size in enumerate(before.shape) if size > 1]
    if len(wide) < 2:
        return False
    rank = len(before.shape)
    if "dims" in op.attributes:
        order = [int(axis) % rank for axis in op.attributes["dims"]]
    else:
        order = list(range(rank))
        first, second = (int(op.attributes.get(f"dim{i}", i)) % rank for i in (0, 1))
        order[first], order[second] = order[second], order[first]
    return [axis for axis in order if axis in wide][-1] != wide[-1]
