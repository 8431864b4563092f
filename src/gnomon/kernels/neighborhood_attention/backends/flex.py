"""torch's FlexAttention, compiled, with the window as a mask function: He et al. 2024 (arXiv:2412.05496).

It skips blocks of 128 x 128 pairs that no window touches. Compiling takes many seconds for each new problem, so it is
never chosen by an estimate; a measurement may choose it.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gnomon.kernels import _native
from gnomon.kernels.neighborhood_attention.backends.case import Case
from gnomon.kernels.neighborhood_attention.problem import Problem

_BLOCK = 128


class Flex:
    name = "flex"

    def why_not(self, case: Case) -> str | None:
        if case.device not in ("cpu", "cuda"):
            return f"FlexAttention has no kernels for {case.device}"
        if case.dtype == torch.float64:
            return "FlexAttention does not compute in float64"
        if case.device == "cpu" and case.needs_grad:
            return "FlexAttention does not train on a CPU"
        if case.device == "cpu" and case.needs_lse:
            return "FlexAttention returns no logsumexp on a CPU"
        if case.device == "cpu" and _native.compiler() is None:
            return "torch.compile needs a C++ compiler; install g++ or set CXX"
        if case.device == "cuda" and case.head_dim < 16:
            return f"FlexAttention wants a head size of at least 16 on a GPU; it is {case.head_dim}"
        return None

    def memory_bytes(self, case: Case) -> int:
        tokens = case.problem.tokens
        blocks = math.ceil(tokens / _BLOCK) ** 2
        # the mask is built from all pairs, as bool, and then kept as lists of blocks: two counts and two index tables
        return tokens**2 + 4 * 4 * blocks

    def seconds(self, case: Case) -> float | None:
        return None

    def run(
        self, q: Tensor, k: Tensor, v: Tensor, problem: Problem, scale: float, rpb: Tensor | None, needs_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        from torch.nn.attention.flex_attention import AuxRequest

        space = q.shape[1:-2]
        q_BHND, k_BGND, v_BGND = (x.flatten(1, -3).transpose(1, 2).contiguous() for x in (q, k, v))
        score_mod = None if rpb is None else _score_mod(rpb, problem)
        result = _compiled()(
            q_BHND,
            k_BGND,
            v_BGND,
            block_mask=_block_mask(problem, q.device),
            score_mod=score_mod,
            scale=scale,
            enable_gqa=q.shape[-2] != k.shape[-2],
            return_aux=AuxRequest(lse=True) if needs_lse else None,
        )
        out_BHND, lse_BHN = (result[0], result[1].lse) if needs_lse else (result, None)
        out = out_BHND.transpose(1, 2).unflatten(1, space)
        return out, None if lse_BHN is None else lse_BHN.transpose(1, 2).unflatten(1, space)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@lru_cache(maxsize=16)
def _block_mask(problem: Problem, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    bounds, groups, places = _tables(problem, device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = query >= 0
        for (start, end), group, place in zip(bounds, groups, places, strict=True):
            seen = seen & (group[query] == group[key]) & (start[query] <= place[key]) & (place[key] < end[query])
        return seen

    return create_block_mask(sees, None, None, problem.tokens, problem.tokens, device=device, BLOCK_SIZE=_BLOCK)


def _score_mod(rpb: Tensor, problem: Problem) -> Callable[..., Tensor]:
    _, _, places = _tables(problem, rpb.device)
    table_HO = rpb.flatten(1)

    def add_bias(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        index = query * 0
        for place, w in zip(places, problem.kernel_size, strict=True):
            index = index * (2 * w - 1) + (place[key] - place[query] + w - 1).clamp(0, 2 * w - 2)
        return score + table_HO[head, index]

    return add_bias


@lru_cache(maxsize=16)
def _tables(problem: Problem, device: torch.device) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor], list[Tensor]]:
    """For each axis, by token number: (first key, end) and the group and the place in it, all in group coordinates."""
    along = torch.unravel_index(torch.arange(problem.tokens, device=device), problem.space)
    bounds, groups, places = [], [], []
    for token, axis in zip(along, problem.axes, strict=True):
        start, end = (torch.from_numpy(bound).to(device)[token] for bound in axis.windows())
        bounds.append((start, end))
        groups.append(token % axis.dilation)
        places.append(token // axis.dilation)
    return bounds, groups, places


backend = Flex()
