"""Scaled dot product attention and its gradient."""

import math
from typing import NamedTuple

from gnomon.workload.cost.call import Call, Cost, traffic
from gnomon.workload.cost.normalize import SOFTMAX, SOFTMAX_BACKWARD


class _Attention(NamedTuple):
    scores: int  # B * H * L * S
    key_size: int
    value_size: int


def _attention_sizes(call: Call) -> _Attention:
    """query (B, H, L, D), key (B, Hk, S, D), value (B, Hk, S, Dv); with grouped queries Hk divides H."""
    q, k, v = call.operand("query"), call.operand("key"), call.operand("value")
    return _Attention(math.prod(q.shape[:-1]) * k.shape[-2], q.shape[-1], v.shape[-1])


def attention(call: Call) -> Cost:
    """Scores Q K^T, their softmax, and P V."""
    a = _attention_sizes(call)
    return Cost("attention", float(a.scores * (2 * (a.key_size + a.value_size) + SOFTMAX)), *traffic(call))


def attention_backward(call: Call) -> Cost:
    """Five products: S = Q K^T again, dP = dO V^T, dV = P^T dO, dQ = dS K, dK = dS^T Q; softmax again, its gradient."""
    a = _attention_sizes(call)
    products = 2 * (3 * a.key_size + 2 * a.value_size)
    return Cost("attention", float(a.scores * (products + 2 + SOFTMAX_BACKWARD)), *traffic(call))
