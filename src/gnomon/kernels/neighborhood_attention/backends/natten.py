"""NATTEN, where it is installed: Hassani et al. 2024 (arXiv:2403.04690), https://natten.org.

Releases before 0.20 know no stride and no LSE and call their functions differently; the two are told apart by version.
NATTEN's compiled library (libnatten) is for CUDA; without it, it runs FlexAttention uncompiled, also on a CPU.
"""

import importlib
import importlib.util
from functools import lru_cache
from importlib import metadata
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from torch import Tensor

from gnomon.kernels.neighborhood_attention.backends.case import Case
from gnomon.kernels.neighborhood_attention.problem import Problem

_STRIDES_SINCE = Version("0.20")
OWN_BACKENDS = ("cutlass-fna", "hopper-fna", "blackwell-fna", "flex-fna")


class Natten:
    name = "natten"

    def why_not(self, case: Case) -> str | None:
        version = _version()
        if version is None:
            return "natten is not installed; its page says how: https://natten.org/install"
        problem = case.problem
        if min(problem.kernel_size) < 2:
            return f"NATTEN wants windows of at least 2; kernel_size is {problem.kernel_size}"
        if case.head_dim != case.head_dim_v:
            return f"NATTEN wants one head size for q, k and v; got {case.head_dim} and {case.head_dim_v}"
        return _why_not_old(case) if version < _STRIDES_SINCE else _why_not_new(case)

    def memory_bytes(self, case: Case) -> int:
        # its FlexAttention path, which keeps all scores, is the one that runs without libnatten
        return 0 if case.device == "cuda" else 3 * case.dense_pairs * 4

    def seconds(self, case: Case) -> float | None:
        return None

    def run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        problem: Problem,
        scale: float,
        rpb: Tensor | None,
        needs_lse: bool,
        **tuning: Any,
    ) -> tuple[Tensor, Tensor | None]:
        version = _version()
        assert version is not None  # why_not
        if scale == 0:
            q, scale = q * 0, 1.0  # NATTEN takes a scale of 0 for 'not given'
        name = f"na{len(problem.space)}d"
        if version < _STRIDES_SINCE:
            old = getattr(importlib.import_module("natten.functional"), name)
            window = {"kernel_size": problem.kernel_size, "dilation": problem.dilation, "is_causal": problem.is_causal}
            return old(q, k, v, **window, rpb=None if rpb is None else rpb.to(q.dtype), scale=scale), None
        result = getattr(importlib.import_module("natten"), name)(
            q,
            k,
            v,
            kernel_size=problem.kernel_size,
            stride=problem.stride,
            dilation=problem.dilation,
            is_causal=problem.is_causal,
            scale=scale,
            return_lse=needs_lse,
            **tuning,
        )
        return result if needs_lse else (result, None)


def _why_not_old(case: Case) -> str | None:
    if max(case.problem.stride) > 1:
        return "NATTEN before 0.20 has no stride"
    if any(w % 2 == 0 for w in case.problem.kernel_size):
        return "NATTEN before 0.20 wants odd windows"
    if case.needs_lse:
        return "NATTEN before 0.20 returns no logsumexp"
    if case.heads != case.heads_kv:
        return "NATTEN before 0.20 wants as many key heads as query heads"
    if case.has_bias and any(case.problem.is_causal):
        return "NATTEN has no relative position bias under causal windows"
    return None


def _why_not_new(case: Case) -> str | None:
    if case.has_bias:
        return "NATTEN since 0.20 has no relative position bias"
    if case.needs_grad and case.needs_lse:
        return "NATTEN does not differentiate its logsumexp"
    if case.device == "cpu" and case.needs_grad:
        return "NATTEN does not train on a CPU"
    if case.device == "cpu" and case.dtype == torch.float64:
        return "NATTEN does not compute in float64"
    if case.device == "cuda" and not importlib.import_module("natten").HAS_LIBNATTEN:
        return "this natten was built without libnatten, and FlexAttention is faster by itself: backend='flex'"
    return None


@lru_cache(maxsize=1)
def _version() -> Version | None:
    """Of the installed package; None without one."""
    if importlib.util.find_spec("natten") is None:
        return None
    try:
        return Version(metadata.version("natten"))
    except (metadata.PackageNotFoundError, InvalidVersion):
        return None


backend = Natten()
