"""What a CPU's integer units can multiply without a silent error, and 8-bit weights that fit them.

x86 multiplies unsigned by signed bytes. With VNNI (or AMX) four products are summed in 32 bits, exactly. Without it,
`vpmaddubsw` sums two products in 16 bits and saturates: 2 * 255 * 128 > 32767. Seven bits on one side keep it exact:
2 * 255 * 63 < 32767.
"""

import functools
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

_SUMS_IN_32_BITS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


class Integers(NamedTuple):
    """What is known of this CPU's integer units. largest_weight: the largest magnitude whose products are exact."""

    why_not: str | None
    largest_weight: int

    @property
    def saturates(self) -> bool:
        return self.largest_weight < 127


def integers(architecture: str, isa: Collection[str]) -> Integers:
    """architecture: as the kernel calls it ('x86_64', 'aarch64'). isa: names as in `devices.host`."""
    if architecture not in ("x86_64", "amd64", "AMD64"):
        return Integers(None, 127)  # ARM widens to 16 bits before it adds
    if "avx2" not in isa:
        has = ", ".join(isa) or "none of the known sets"
        return Integers(f"fast int8 products need AVX2 or newer; this CPU has {has}", 127)
    return Integers(None, 127 if _SUMS_IN_32_BITS.intersection(isa) else 63)


@functools.cache
def here() -> Integers:
    """This machine's."""
    from gnomon.devices.host import host

    found = host(run=lambda command: None)  # no GPU tool needs to be started for this
    return integers(found.architecture, found.isa)


class Quantized(NamedTuple):
    """values: [out, in] int8. scale: [out] float32; values * scale[:, None] approximates the weight."""

    values: Tensor
    scale: Tensor


def quantize_rows(weight: Tensor, largest: int = 127) -> Quantized:
    """Symmetric, one scale per output channel: a channel with large weights does not coarsen the others.

    weight: [out, in]. largest: magnitude that the largest weight of each row becomes. A row of zeros gets scale 1.
    """
    peak = weight.detach().float().abs().amax(1)
    scale = torch.where(peak > 0, peak / largest, torch.ones_like(peak))
    return Quantized(torch.round(weight.detach().float() / scale[:, None]).to(torch.int8), scale)
