"""Matrix products, and layers that are mostly that."""

import math

from gnomon.workload.cost.call import Call, Cost, Operand, Rule, traffic
from gnomon.workload.cost.normalize import SOFTMAX


def product(call: Call, multiply_adds: float, extra: float = 0.0) -> Cost:
    return Cost("matmul", 2.0 * multiply_adds + extra, *traffic(call))


def matmul(first: str, second: str, bias: str | None = None) -> Rule:
    """Batched or plain (..., M, K) x (..., K, N), vectors included; a matrix that is added costs 1 per output."""

    def rule(call: Call) -> Cost:
        a, b = call.operand(first), call.operand(second)
        extra = float(call.outputs[0].elements) if bias is not None and call.has(bias) else 0.0
        if a.nonzeros is not None:
            return product(call, a.nonzeros * (b.shape[-1] if len(b.shape) > 1 else 1), extra)
        if b.nonzeros is not None:
            return product(call, b.nonzeros * a.shape[0], extra)
        return product(call, call.outputs[0].elements * a.shape[-1], extra)

    return rule


def linear(call: Call) -> Cost:
    """y = x A^T + b: the weight is (N, K), a vector (K,) gives one number per row."""
    extra = float(call.outputs[0].elements) if call.has("bias") else 0.0
    return product(call, call.outputs[0].elements * call.operand("weight").shape[-1], extra)


def sampled_product(call: Call) -> Cost:
    """Only the entries of a sparse pattern: out = beta * self + alpha * (mat1 @ mat2 where self is stored)."""
    return product(call, float(call.operand("self").nonzeros or 0) * call.operand("mat1").shape[-1])


def summed_products(call: Call) -> Cost:
    return product(call, float(call.operand("batch1").elements * call.operand("batch2").shape[-1]), call.size)


def grouped_product(call: Call) -> Cost:
    """Rows are divided among the groups, so each row meets one matrix; with two matrices the inner axis is divided."""
    a, b = call.operand("self", "mat_a"), call.operand("mat2", "mat_b")
    if len(b.shape) == 3 and len(a.shape) == 2:
        return product(call, float(a.elements * b.shape[-1]))
    if len(a.shape) == 3 and len(b.shape) == 2:
        return product(call, float(a.shape[-2] * b.elements))
    return product(call, float(a.elements * b.shape[-1]))


def outer(call: Call) -> Cost:
    return product(call, float(call.size))


def recurrent(passes: int) -> Rule:
    """Fused LSTM or GRU layer: input and recurrent products for every token; the gates' own arithmetic is 1 % of it."""

    def rule(call: Call) -> Cost:
        tokens = math.prod(call.operand("input").shape[:-1])
        named = [o for key, o in call.arguments.items() if key.startswith("weight") and isinstance(o, Operand)]
        return product(call, float(passes * tokens * sum(o.elements for o in named if len(o.shape) == 2)))

    return rule


def encoder_layer(call: Call) -> Cost:
    """Fused nn.MultiheadAttention or nn.TransformerEncoderLayer: every matrix meets every token; then the scores."""
    tokens = call.operand("src", "query")
    batch, length, width = tokens.shape
    heads = call.number("num_heads", call.number("num_head", 1))
    matrices = [o for o in call.inputs if len(o.shape) == 2]
    scores = batch * length * length
    return product(
        call,
        float(batch * length * sum(o.elements for o in matrices) + 2 * scores * width),
        float(SOFTMAX * scores * heads),
    )
