"""Our own kernels behind torch.ops.gnomon.neighborhood_attention: C++ on a CPU, Triton on a GPU. Both train, are
deterministic, and keep neither scores nor masks."""

import torch
from torch import Tensor

from gnomon.kernels import _triton
from gnomon.kernels.neighborhood_attention.backends.case import Case
from gnomon.kernels.neighborhood_attention.problem import Problem

_CPU_FLOP_S = 50e9  # useful FLOP/s of one AVX-512 core at windows of 7 x 7; more at larger ones
_GPU_FLOP_S = 150e12  # the same of a Hopper card in 16 bits


class _Native:
    name: str

    def memory_bytes(self, case: Case) -> int:
        # one copy of every operand in the kernel's order; backward adds float32 gradients of keys and values
        keys = case.batch * case.problem.tokens * case.heads_kv * (case.head_dim + case.head_dim_v)
        return case.operands_bytes + (4 * keys * torch.get_num_threads() if case.needs_grad else 0)

    def run(
        self, q: Tensor, k: Tensor, v: Tensor, problem: Problem, scale: float, rpb: Tensor | None, needs_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        from gnomon.kernels.neighborhood_attention.operator import attend

        return attend(q, k, v, problem, scale, rpb)


class Cpu(_Native):
    name = "cpu"

    def why_not(self, case: Case) -> str | None:
        from gnomon.kernels.neighborhood_attention import cpu

        if case.device != "cpu":
            return f"its kernels are for CPUs; the tensors are on {case.device}"
        if (reason := _why_not_heads(case)) is not None:
            return reason
        if case.dtype == torch.float64:
            return "its kernels compute in float32; the reference computes float64"
        return cpu.KERNELS.why_not()

    def seconds(self, case: Case) -> float | None:
        return 5e-5 + case.flop(case.pairs) / (_CPU_FLOP_S * torch.get_num_threads())


class Triton(_Native):
    name = "triton"

    def why_not(self, case: Case) -> str | None:
        reason = _triton.why_not(torch.device(case.device))
        if reason is not None:
            return reason
        from gnomon.kernels.neighborhood_attention import gpu  # needs Triton

        if case.dtype not in gpu.DTYPES:
            return f"its kernels take float32, float16 and bfloat16; got {case.dtype}"
        if case.head_dim > gpu.MAX_HEAD_SIZE:
            return f"its kernels take heads of up to {gpu.MAX_HEAD_SIZE} features; got {case.head_dim}"
        return _why_not_heads(case)

    def seconds(self, case: Case) -> float | None:
        return 5e-5 + case.flop(case.pairs) / _GPU_FLOP_S


def _why_not_heads(case: Case) -> str | None:
    if case.head_dim != case.head_dim_v:
        return f"its kernels want one head size for keys and values; got {case.head_dim} and {case.head_dim_v}"
    return None


cpu, triton = Cpu(), Triton()
