"""Implementations of neighborhood attention by name, why each can or cannot run a call, and which one does.

cpu        our C++ kernels                       triton   our GPU kernels
sdpa       torch's SDPA under a dense mask       flex     torch's FlexAttention, compiled
natten     the installed package                 reference   the definition
"""

from collections.abc import Mapping
from functools import lru_cache

from gnomon.core.errors import did_you_mean
from gnomon.kernels.neighborhood_attention.backends import flex, measured, native, natten, reference, sdpa
from gnomon.kernels.neighborhood_attention.backends.backend import Backend
from gnomon.kernels.neighborhood_attention.backends.case import Case

BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (native.cpu, native.triton, sdpa.backend, flex.backend, natten.backend, reference.backend)
}
AUTO = "auto"


def reasons(case: Case) -> dict[str, str | None]:
    """Backend -> why it cannot run the case here, None where it can; in the order in which they are listed."""
    return {name: backend.why_not(case) for name, backend in BACKENDS.items()}


def named(name: str, case: Case) -> Backend:
    """The backend of that name. Raises ValueError when there is none, or when it cannot run the case."""
    if name not in BACKENDS:
        raise ValueError(
            f"backend {name!r} is not known.{did_you_mean(name, BACKENDS)} Known: {AUTO}, {', '.join(BACKENDS)}"
        )
    reason = BACKENDS[name].why_not(case)
    if reason is not None:
        can = ", ".join(other for other, why in reasons(case).items() if why is None) or "none"
        raise ValueError(f"backend {name!r} does not run here: {reason}. These do: {can}")
    return BACKENDS[name]


def chosen(case: Case) -> Backend:
    """The fastest backend for the case: by what `profile` measured for exactly this case on this machine, else by each
    backend's estimate (pairs of queries and keys that it computes, over its usual FLOP rate).

    Raises ValueError, with every backend's reason, when none can run it.
    """
    return BACKENDS[_chosen(case)]


def forget() -> None:
    """Choose anew, with what other processes may have measured since."""
    measured.forget()
    _chosen.cache_clear()


@lru_cache(maxsize=1024)
def _chosen(case: Case) -> str:
    refusals = reasons(case)
    able = [name for name, reason in refusals.items() if reason is None]
    if not able:
        why = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
        raise ValueError(f"backend: none can run this call. {why}")
    seconds = {name: time for name, time in measured.times(case).items() if name in able}
    if not seconds:
        estimates = {name: BACKENDS[name].seconds(case) for name in able}
        seconds = {name: time for name, time in estimates.items() if time is not None}
    return min(seconds, key=lambda name: seconds[name]) if seconds else able[0]
