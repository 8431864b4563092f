"""Convolutions and their gradients."""

import math

from gnomon.workload.cost.call import Call, Cost, Operand, traffic, written_bytes


def _convolution_products(call: Call, output: Operand) -> float:
    """Multiply-adds of the forward convolution, whose weight is (out, in / groups, *kernel).

    Each output element takes in/groups * kernel products. Transposed, the weight is (in, out / groups, *kernel) and
    each input element gives out/groups * kernel of them.
    """
    weight = call.operand("weight")
    anchor = call.operand("input") if call.number("transposed", False) else output
    return float(anchor.elements * math.prod(weight.shape[1:]))


def convolution(call: Call) -> Cost:
    output = call.outputs[0]
    bias = output.elements if call.has("bias") else 0
    return Cost("convolution", 2.0 * _convolution_products(call, output) + bias, *traffic(call))


def convolution_backward(call: Call) -> Cost:
    """Each of the two gradients that is asked for is a product as large as the forward one; the bias's is a sum."""
    gradient = call.operand("grad_output")
    wants_input, wants_weight, wants_bias = call.number("output_mask", [True, True, True])
    products = _convolution_products(call, gradient) * (bool(wants_input) + bool(wants_weight))
    read = gradient.bytes
    read += call.operand("weight").bytes if wants_input else 0
    read += call.operand("input").bytes if wants_weight else 0
    return Cost(
        "convolution", 2.0 * products + (gradient.elements if wants_bias else 0), float(read), written_bytes(call)
    )
