"""What an implementation of neighborhood attention offers, so that one can be chosen and every refusal is explained."""

import os
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from gnomon.kernels.neighborhood_attention.backends.case import Case
from gnomon.kernels.neighborhood_attention.problem import Problem


class Backend(Protocol):
    """One implementation. All compute what `reference.neighborhood_attention` defines, up to rounding."""

    @property
    def name(self) -> str: ...

    def why_not(self, case: Case) -> str | None:
        """Why it cannot run the case here, as the end of the sentence 'It does not run: ...'; None when it can."""

    def memory_bytes(self, case: Case) -> int:
        """Peak memory beside q, k, v, the output and their gradients: scores, masks, probabilities."""

    def seconds(self, case: Case) -> float | None:
        """About how long a call takes here; None where nothing is known, and it is then chosen by measurement only."""

    def run(
        self, q: Tensor, k: Tensor, v: Tensor, problem: Problem, scale: float, rpb: Tensor | None, needs_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(out, lse) as the reference returns them; lse may be None where it is not needed."""


def why_no_room(need_bytes: int, device: str, free: Callable[[str], int | None] | None = None) -> str | None:
    """Why the device has no room for so many bytes; None when it has, or when nobody can say.

    free: returns the free bytes of a device.
    """
    have = (free or free_bytes)(device)
    if have is None or need_bytes <= have:
        return None
    return f"its scores need {need_bytes / 2**30:.1f} GiB and {device} has {have / 2**30:.1f} GiB free"


def free_bytes(device: str) -> int | None:
    """Free memory of a device, with what the system would give back for the asking; None where it is not known."""
    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if device != "cpu":
        return None
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
