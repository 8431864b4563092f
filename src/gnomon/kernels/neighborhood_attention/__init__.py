"""Neighborhood attention on grids of one to three axes, on CPUs and GPUs, forward and backward.

The public names, each imported when it is first used (so that the tile counts and stored records need no torch):

na1d, na2d, na3d, neighborhood_attention_generic    the functions; keyword for keyword NATTEN's
NeighborhoodAttention1D, 2D, 3D                     the layers; parameter for parameter NATTEN's
attention, merge_attentions                         dense attention with its logsumexp; several attentions made one
why_not, profile                                    who can run a call, and who runs it fastest
Problem, Case                                       a grid with its window, and a call without its tensors
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnomon.kernels.neighborhood_attention.backends.case import Case
    from gnomon.kernels.neighborhood_attention.dense import attention
    from gnomon.kernels.neighborhood_attention.functional import (
        na1d,
        na2d,
        na3d,
        neighborhood_attention_generic,
        why_not,
    )
    from gnomon.kernels.neighborhood_attention.merge import merge_attentions
    from gnomon.kernels.neighborhood_attention.modules import (
        NeighborhoodAttention1D,
        NeighborhoodAttention2D,
        NeighborhoodAttention3D,
    )
    from gnomon.kernels.neighborhood_attention.problem import Problem
    from gnomon.kernels.neighborhood_attention.profiling import profile

_MODULES = {
    "Case": "backends.case",
    "NeighborhoodAttention1D": "modules",
    "NeighborhoodAttention2D": "modules",
    "NeighborhoodAttention3D": "modules",
    "Problem": "problem",
    "attention": "dense",
    "merge_attentions": "merge",
    "na1d": "functional",
    "na2d": "functional",
    "na3d": "functional",
    "neighborhood_attention_generic": "functional",
    "profile": "profiling",
    "why_not": "functional",
}
__all__ = [
    "Case",
    "NeighborhoodAttention1D",
    "NeighborhoodAttention2D",
    "NeighborhoodAttention3D",
    "Problem",
    "attention",
    "merge_attentions",
    "na1d",
    "na2d",
    "na3d",
    "neighborhood_attention_generic",
    "profile",
    "why_not",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
