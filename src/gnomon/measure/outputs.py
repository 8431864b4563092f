"""What a timed call computed: a time without a check of its outputs proves nothing."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from gnomon.core.errors import CheckFailed


def refuse_nan(outputs: Sequence[Tensor], who: str) -> None:
    """Raises CheckFailed, naming the output, when one holds NaN. Infinities pass: masks use them."""
    for i, output in enumerate(outputs):
        if output.is_floating_point() or output.is_complex():
            bad = int(torch.isnan(output).sum())
            if bad:
                raise CheckFailed(
                    f"{who}: output {i} of shape {tuple(output.shape)} holds {bad} NaN of {output.numel()} values. "
                    "Times of a wrong result are not reported; check the weights, the inputs and the dtype"
                )


def outputs_digest(outputs: Sequence[Tensor]) -> str:
    """`sha256:...` of shapes, dtypes and values, rounded to a thousandth of each output's largest finite magnitude.

    Equal runs give equal digests; a digest that differs says 'look', not 'wrong': a value can lie on a rounding edge.
    """
    sha = hashlib.sha256()
    for output in outputs:
        sha.update(f"{tuple(output.shape)} {output.dtype};".encode())
        if output.is_complex():
            output = torch.view_as_real(output)
        values = output.detach().to("cpu", torch.float64)
        if output.is_floating_point():
            finite = values[torch.isfinite(values)]
            scale = float(finite.abs().max()) if finite.numel() else 0.0
            values = torch.round(values / (scale or 1.0), decimals=3) + 0.0  # + 0.0: no negative zero
        sha.update(values.contiguous().numpy().tobytes())
    return "sha256:" + sha.hexdigest()
