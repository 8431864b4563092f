import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from gnomon.kernels.detected_attention import reference

from .problems import kept, problems, qkv


def loops(q, k, v, index, count, scale):
    """The formula of the paper, key by key."""
    out, lse = torch.zeros_like(q), torch.full(q.shape[:3], -math.inf, dtype=q.dtype)
    group = q.shape[1] // k.shape[1]
    for b, h, n in torch.cartesian_prod(*(torch.arange(size) for size in q.shape[:3])).tolist():
        keys = index[b, h, n, : count[b, h, n]].tolist()
        weights = [
            math.exp(scale * sum(q[b, h, n, d] * k[b, h // group, j, d] for d in range(q.shape[3]))) for j in keys
        ]
        for weight, j in zip(weights, keys, strict=True):
            out[b, h, n] += weight / sum(weights) * v[b, h // group, j]
        lse[b, h, n] = math.log(sum(weights)) if weights else -math.inf
    return out, lse


@pytest.mark.parametrize("seed", range(3))
def test_kept_attention_is_the_papers_formula(seed):
    z = {"B": 2, "H": 4, "G": 2, "N": 3, "M": 5, "D": 2, "R": 1, "seed": seed}
    q, k, v = qkv(z, torch.float64)
    index, count = kept(z)
    for found, wanted in zip(
        reference.sparse_attention(q, k, v, index, count, 0.3), loops(q, k, v, index, count, 0.3), strict=True
    ):
        torch.testing.assert_close(found, wanted)


@given(problems())
@settings(max_examples=20)
def test_keeping_everything_is_dense_attention(z):
    q, k, v = qkv(z, torch.float64)
    index = torch.arange(z["M"], dtype=torch.int32).expand(z["B"], z["H"], z["N"], -1)
    count = torch.full(index.shape[:3], z["M"], dtype=torch.int32)
    dense = scaled_dot_product_attention(q, k, v, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(reference.sparse_attention(q, k, v, index, count, 0.3)[0], dense)
    parts = -(-z["M"] // 4)
    blocks = torch.arange(parts, dtype=torch.int32).expand(z["B"], z["H"], -(-z["N"] // 3), -1)
    counts = torch.full(blocks.shape[:3], parts, dtype=torch.int32)
    found, _ = reference.block_sparse_attention(q, k, v, blocks, counts, (3, 4), False, None, 0.3)
    torch.testing.assert_close(found, dense)


@given(problems(), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=20)
def test_blocks_are_the_keys_inside_them(z, rows, columns):
    q, k, v = qkv(z, torch.float64)
    tiled = z | {"N": -(-z["N"] // rows), "M": -(-z["M"] // columns)}
    index, count = kept(tiled)
    mask = reference.block_mask(index, count, (rows, columns), z["N"], z["M"])
    for n in range(z["N"]):
        blocks = index[0, 0, n // rows, : count[0, 0, n // rows]].tolist()
        assert mask[0, 0, n].nonzero().flatten().tolist() == [j for j in range(z["M"]) if j // columns in blocks]
    keys = [row.nonzero().flatten() for row in mask.flatten(0, 2)]
    most = max(1, max(len(row) for row in keys))
    tokens = torch.stack([torch.nn.functional.pad(row, (0, most - len(row)), value=-1) for row in keys]).int()
    single = reference.sparse_attention(q, k, v, tokens.view(*mask.shape[:3], most), mask.sum(-1).int(), 0.3)
    whole = reference.block_sparse_attention(q, k, v, index, count, (rows, columns), False, None, 0.3)
    torch.testing.assert_close(whole, single)
