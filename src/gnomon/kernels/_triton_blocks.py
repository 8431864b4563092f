"""Block sizes of attention kernels in Triton, by GPU, kernel and head size. No Triton here."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Blocks:
    """Queries and keys in a tile, warps of a program, and tiles that are loaded ahead."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


def blocks(target: str, dtype: torch.dtype, head_size: int, kernel: str) -> Blocks:
    """Block sizes of a kernel ("forward", "grad_query" or "grad_key") for a target of `_triton.TARGETS`.

    head_size: the larger one of keys and values. What bounds the sizes: tiles of both walked tensors in each stage must
    fit into shared memory (164 KB on an A100, 227 KB on an H100 or B200, 64 KB on an MI300), the accumulators into
    registers.
    """
    is_backward = kernel != "forward"
    if dtype == torch.float32:
        return Blocks(64, 32, 4, 2) if head_size <= 64 else Blocks(32, 32, 4, 1 if head_size > 128 else 2)
    if target == "gfx942":
        return Blocks(64, 32, 4, 1) if is_backward or head_size > 128 else Blocks(128, 64, 4, 1)
    is_hopper = target in ("sm_90", "sm_100")
    if head_size > 128:
        small = Blocks(64, 32, 8 if is_backward else 4, 1)
        return Blocks(64, 64, 8 if is_backward else 4, 2 if not is_backward else 1) if is_hopper else small
    if kernel == "grad_key":
        return Blocks(64, 128, 8, 2) if is_hopper else Blocks(64, 64, 4 if head_size <= 64 else 8, 2)
    if kernel == "grad_query":
        return Blocks(128, 64, 8, 2) if is_hopper else Blocks(64, 64, 4 if head_size <= 64 else 8, 2)
    if is_hopper:
        return Blocks(128, 128, 8, 2 if head_size > 64 else 3)
    return Blocks(128, 64, 4 if head_size <= 64 else 8, 3)
