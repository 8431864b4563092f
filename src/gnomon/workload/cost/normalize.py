"""Softmax and normalization."""

from gnomon.workload.cost.call import Call, Cost, Rule, traffic
from gnomon.workload.graph import Category

# FLOP per element of the operators that torch runs as one kernel.
SOFTMAX = 5  # largest, subtract, exponential, sum, divide
SOFTMAX_BACKWARD = 4  # y * dy, its sum, subtract, multiply
STATISTICS = 4  # mean: 1 add; variance: subtract, square, add
NORMALIZE = 2  # subtract the mean, times the inverse deviation
AFFINE = 2  # times weight, plus bias
NORM_BACKWARD_INPUT = 10  # normalise again 2, weight 1, two sums 3, combine 4
NORM_BACKWARD_WEIGHT = 2  # multiply, add
NORM_BACKWARD_BIAS = 1  # add


def per_element(category: Category, flop: float) -> Rule:
    def rule(call: Call) -> Cost:
        return Cost(category, flop * call.size, *traffic(call))

    return rule


def layer_norm(call: Call) -> Cost:
    flop = STATISTICS + NORMALIZE + (AFFINE if call.has("weight") else 0)
    return Cost("normalization", float(flop * call.operand("input").elements), *traffic(call))


def rms_norm(call: Call) -> Cost:
    """Square and sum, times the inverse root mean square, times weight."""
    return Cost("normalization", (4.0 if call.has("weight") else 3.0) * call.operand("input").elements, *traffic(call))


def batch_norm(call: Call) -> Cost:
    """With stored statistics it only normalises; else it takes them from the batch."""
    training = bool(call.number("training", call.number("train", "no_stats" not in call.name)))
    flop = (STATISTICS if training else 0) + NORMALIZE + (AFFINE if call.has("weight") else 0)
    return Cost("normalization", float(flop * call.operand("input").elements), *traffic(call))


def norm_backward(call: Call) -> Cost:
    wants_input, wants_weight, wants_bias = call.number("output_mask", [True, True, True])
    per_element = NORM_BACKWARD_INPUT * bool(wants_input)
    per_element += NORM_BACKWARD_WEIGHT * bool(wants_weight) + NORM_BACKWARD_BIAS * bool(wants_bias)
    return Cost("normalization", float(per_element * call.inputs[0].elements), *traffic(call))
