"""The definition, run as it stands: any device, any dtype, every gradient, and all scores in memory at once."""

import torch
from torch import Tensor

from gnomon.kernels.neighborhood_attention import reference
from gnomon.kernels.neighborhood_attention.backends.backend import why_no_room
from gnomon.kernels.neighborhood_attention.backends.case import Case
from gnomon.kernels.neighborhood_attention.problem import Problem

_FLOP_S = {"cpu": 15e9, "cuda": 2e12}  # a third of what masked SDPA reaches: scores pass through memory five times


class Reference:
    name = "reference"

    def why_not(self, case: Case) -> str | None:
        return why_no_room(self.memory_bytes(case), case.device)

    def memory_bytes(self, case: Case) -> int:
        wide = torch.promote_types(case.dtype, torch.float32).itemsize
        # the scores, the masked ones and the softmax; backward adds the softmax's gradient and the scores'
        return case.problem.tokens**2 + case.dense_pairs * wide * (5 if case.needs_grad else 3)

    def seconds(self, case: Case) -> float | None:
        return 1e-3 + case.flop(case.dense_pairs) / _FLOP_S.get(case.device, _FLOP_S["cpu"])

    def run(
        self, q: Tensor, k: Tensor, v: Tensor, problem: Problem, scale: float, rpb: Tensor | None, needs_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        return reference.neighborhood_attention(q, k, v, problem, scale, rpb)


backend = Reference()
