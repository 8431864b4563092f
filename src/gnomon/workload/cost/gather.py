"""Gather and scatter."""

from gnomon.workload.cost.call import Call, Cost, Rule, operands, traffic, written_bytes


def _indices(call: Call) -> int:
    """Bytes of the index tensors of a call."""
    return sum(o.bytes for name in ("indices", "index") for o in operands(call.arguments.get(name)))


def gather(call: Call) -> Cost:
    """Reads the indices and as much of the table as comes out."""
    return Cost("gather", 0.0, float(_indices(call)) + written_bytes(call), written_bytes(call))


def embedding_backward(call: Call) -> Cost:
    """Adds every row of the gradient into a dense table that is zeroed first."""
    gradient = call.operand("grad_output")
    return Cost("gather", float(gradient.elements), *traffic(call))


def scatter(adds: bool) -> Rule:
    """Puts `source` into rows of `self`. Out of place all of self is copied; in place only the rows are touched."""

    def rule(call: Call) -> Cost:
        target, index = call.operand("self"), _indices(call)
        sources = [o for key in ("source", "src", "values", "value") for o in operands(call.arguments.get(key))]
        moved = sum(o.bytes for o in sources)
        adding = adds or bool(call.number("accumulate", False))
        elements = sum(o.elements for o in sources)
        rows = moved if adding else 0  # what is added to must be read
        if call.written:
            touched = elements * target.item_bytes or index
            return Cost("gather", float(elements * adding), float(moved + index + rows), float(touched))
        read = moved + index + target.bytes
        return Cost("gather", float(elements * adding), float(read), written_bytes(call))

    return rule


def embedding_bag(call: Call) -> Cost:
    rows = call.operand("indices").elements * call.operand("weight").shape[-1]
    read = _indices(call) + rows * call.operand("weight").item_bytes
    return Cost("gather", float(rows), float(read), written_bytes(call))
