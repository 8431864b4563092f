"""Elementwise work, reductions, copies, random numbers, optimizers: operators that stream through memory."""

from gnomon.workload.cost.call import Call, Cost, Rule, operands, traffic, written_bytes

# FLOP per element
DROPOUT = 2  # draw and compare, multiply
ADAM = 12  # two moving averages 3 + 4, bias corrections and root 3, update 2
ADAMW = ADAM + 1  # the decay
SGD = 4  # decay 2 (a multiply-add), momentum or step 2


def view(call: Call) -> Cost:
    return Cost("view", 0.0, 0.0, 0.0)


def elementwise(call: Call) -> Cost:
    return Cost("elementwise", float(call.size), *traffic(call))


def foreach(call: Call) -> Cost:
    made = call.changed if call.written else call.outputs
    return Cost("elementwise", float(sum(o.elements for o in made)), *traffic(call))


def reduction(per_element: float) -> Rule:
    """`per_element` FLOP for each element that goes in."""

    def rule(call: Call) -> Cost:
        return Cost("reduction", per_element * call.inputs[0].elements, *traffic(call))

    return rule


def copy(call: Call) -> Cost:
    """Everything that is read is written somewhere else: cat, clone, a change of dtype."""
    written = written_bytes(call)
    read = sum(o.bytes for o in call.inputs) - sum(o.bytes for o in call.changed)
    return Cost("copy", 0.0, float(max(read, 0)), written)


def cut(call: Call) -> Cost:
    """Reads as many elements as it writes of an input that may be larger or smaller: flip, roll, pad, tril."""
    source = call.inputs[0]
    return Cost("copy", 0.0, float(min(source.bytes, written_bytes(call))), written_bytes(call))


def fill(call: Call) -> Cost:
    """Writes a value that is not in memory: zeros, arange, fill_. The shape of a `*_like` argument is not read."""
    return Cost("copy", 0.0, 0.0, written_bytes(call))


def scalar(call: Call) -> Cost:
    return Cost("copy", 0.0, float(call.inputs[0].item_bytes), 0.0)


def random(call: Call) -> Cost:
    return Cost("random", float(call.size), 0.0, written_bytes(call))


def draw_from(call: Call) -> Cost:
    return Cost("random", float(call.inputs[0].elements), *traffic(call))


def dropout(call: Call) -> Cost:
    return Cost("random", float(DROPOUT * call.size), *traffic(call))


def fused(per_element: float) -> Rule:
    """One kernel for the whole update: reads what it gets, writes what it changes."""

    def rule(call: Call) -> Cost:
        elements = sum(o.elements for o in operands(call.arguments["self"]))
        return Cost("optimizer", per_element * elements, *traffic(call))

    return rule
