"""torch's scaled_dot_product_attention under a dense mask: no kernel of ours, n^2 work and an n^2 mask.

What a user would write without this package, hence also what others are compared with. Windows that hide nothing need
no mask, and a causal window over a whole 1-D axis uses the causal flag.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gnomon.kernels.neighborhood_attention import reference
from gnomon.kernels.neighborhood_attention.backends.backend import why_no_room
from gnomon.kernels.neighborhood_attention.backends.case import Case
from gnomon.kernels.neighborhood_attention.problem import Problem

_FLOP_S = {"cpu": 60e9, "cuda": 50e12}  # one AVX-512 core, float32: 62-69 GFLOP/s; a GPU that must read the mask


class Sdpa:
    name = "sdpa"

    def why_not(self, case: Case) -> str | None:
        return why_no_room(self.memory_bytes(case), case.device)

    def memory_bytes(self, case: Case) -> int:
        mask = 0 if _needs_no_mask(case.problem, case.has_bias) else case.problem.tokens**2
        if case.has_bias:
            mask += case.heads * case.problem.tokens**2 * case.dtype.itemsize
        scores = case.dense_pairs * torch.promote_types(case.dtype, torch.float32).itemsize
        keeps_scores = case.needs_lse or (case.needs_grad and case.has_bias)  # a learned mask takes the plain path
        return mask + (3 * scores if keeps_scores else 0)

    def seconds(self, case: Case) -> float | None:
        products = 1.5 if case.needs_lse else 1.0  # the LSE takes the scores once more
        return 1e-4 + products * case.flop(case.dense_pairs) / _FLOP_S.get(case.device, _FLOP_S["cpu"])

    def run(
        self, q: Tensor, k: Tensor, v: Tensor, problem: Problem, scale: float, rpb: Tensor | None, needs_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        space, repeats = q.shape[1:-2], q.shape[-2] // k.shape[-2]
        q_BHND, k_BGND, v_BGND = (x.flatten(1, -3).transpose(1, 2) for x in (q, k, v))
        k_BHND, v_BHND = (x.repeat_interleave(repeats, 1) if repeats > 1 else x for x in (k_BGND, v_BGND))
        mask: Tensor | None = None
        is_causal = False
        if rpb is not None:
            hidden_NN = ~_mask(problem, q.device)
            mask = (
                rpb.to(q.dtype).flatten(1)[:, reference.offsets(problem, q.device)].masked_fill(hidden_NN, -torch.inf)
            )
        elif _is_whole_causal(problem):
            is_causal = True
        elif not problem.is_dense:
            mask = _mask(problem, q.device)
        out_BHND = scaled_dot_product_attention(
            q_BHND, k_BHND, v_BHND, attn_mask=mask, is_causal=is_causal, scale=scale
        )
        out = out_BHND.transpose(1, 2).unflatten(1, space)
        return out, _lse(q_BHND, k_BHND, problem, scale, rpb) if needs_lse else None


def _lse(q_BHND: Tensor, k_BHND: Tensor, problem: Problem, scale: float, rpb: Tensor | None) -> Tensor:
    """[B, *space, H]: SDPA keeps its own to itself, so the scores are computed once more."""
    wide = torch.promote_types(q_BHND.dtype, torch.float32)
    score_BHNN = (q_BHND.to(wide) @ k_BHND.to(wide).transpose(-1, -2)) * scale
    if rpb is not None:
        score_BHNN = score_BHNN + rpb.to(wide).flatten(1)[:, reference.offsets(problem, rpb.device)]
    lse_BHN = score_BHNN.masked_fill(~_mask(problem, q_BHND.device), -torch.inf).logsumexp(-1)
    return lse_BHN.transpose(1, 2).unflatten(1, problem.space)


def _is_whole_causal(problem: Problem) -> bool:
    return (
        len(problem.space) == 1
        and problem.is_causal == (True,)
        and problem.kernel_size == problem.space
        and problem.stride == (1,)
    )


def _needs_no_mask(problem: Problem, has_bias: bool) -> bool:
    return not has_bias and (problem.is_dense or _is_whole_causal(problem))


@lru_cache(maxsize=4)  # n^2 bytes each
def _mask(problem: Problem, device: torch.device) -> Tensor:
    return torch.from_numpy(problem.mask()).to(device)


backend = Sdpa()
