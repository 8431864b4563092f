"""What operators read in another order than it lies in memory, followed through the views of a graph.

A graph has shapes, no strides. A transposed tensor is one whose last reordering view was not undone; an elementwise
operator keeps the order of its first full-sized input, everything else writes in the order of the axes.
"""

from gnomon.workload.graph import OpGraph, TensorInfo

_REORDERING = ("t", "transpose", "permute", "movedim", "swapaxes")
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
            if name in _REORDERING and tensors and _moves(tensors[0], graph.tensors[op.outputs[0]]):
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


def _moves(before: TensorInfo, after: TensorInfo) -> bool:
    """Whether a reordering view changes the order in memory: axes of size 1 are nowhere."""
    return sum(size > 1 for size in before.shape) > 1 and before.elements == after.elements
