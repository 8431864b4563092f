"""One attention out of several over disjoint keys: their outputs, weighted by how much of the softmax each one holds.

Online softmax, Milakov and Gimelshein 2018 (arXiv:1805.02867) eq. 4, for whole attentions: with two,
o = o1 - sigmoid(l2 - l1) (o1 - o2) and l = l1 - logsigmoid(l1 - l2).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def merge_attentions(
    outputs: Sequence[Tensor],
    lse_tensors: Sequence[Tensor],
    torch_compile: bool = True,
    use_autograd_fix: bool = True,
) -> tuple[Tensor, Tensor]:
    """(out, lse) of the attention over the union of the keys that the given attentions saw.

    outputs: [..., H, D] each, of one shape and dtype. lse_tensors: their natural logsumexps [..., H]; -inf says that an
    attention saw no key. Any number of them, at least one; differentiable in all outputs and all LSEs. The sums run in
    float32 (float64 for float64); `out` has the dtype of the outputs, `lse` that of the sums. torch_compile and
    use_autograd_fix are NATTEN's; they change nothing here, where gradients are right without a fix.
    Raises ValueError naming the argument.
    """
    _check(outputs, lse_tensors)
    wide = torch.promote_types(outputs[0].dtype, torch.float32)
    lse_MH = torch.stack([lse.to(wide) for lse in lse_tensors])
    # weights that sum to 1; where no attention saw a key, -inf - (-inf) would be NaN
    top_H = lse_MH.detach().amax(0).clamp(min=torch.finfo(wide).min)
    weight_MH = (lse_MH - top_H).exp()
    total_H = weight_MH.sum(0)
    is_empty_H = total_H == 0
    weight_MH = weight_MH / total_H.masked_fill(is_empty_H, 1)
    out = sum(weight[..., None] * output.to(wide) for weight, output in zip(weight_MH, outputs, strict=True))
    assert isinstance(out, Tensor)  # there is at least one
    lse_H = top_H + total_H.masked_fill(is_empty_H, 1).log()
    return out.to(outputs[0].dtype), lse_H.masked_fill(is_empty_H, -torch.inf)


def _check(outputs: Sequence[Tensor], lse_tensors: Sequence[Tensor]) -> None:
    if not outputs or len(outputs) != len(lse_tensors):
        raise ValueError(
            f"outputs and lse_tensors need one entry per attention, at least one; got {len(outputs)} and "
            f"{len(lse_tensors)}"
        )
    first = outputs[0]
    for i, (output, lse) in enumerate(zip(outputs, lse_tensors, strict=True)):
        if (output.shape, output.dtype, output.device) != (first.shape, first.dtype, first.device):
            raise ValueError(
                f"outputs[{i}] is {list(output.shape)} {output.dtype} on {output.device}; outputs[0] is "
                f"{list(first.shape)} {first.dtype} on {first.device}, and all must be alike"
            )
        if lse.shape != output.shape[:-1]:
            raise ValueError(
                f"lse_tensors[{i}] is {list(lse.shape)}; the LSE of an output {list(output.shape)} is "
                f"{list(output.shape[:-1])}"
            )
        if not lse.is_floating_point() or lse.device != output.device:
            raise ValueError(f"lse_tensors[{i}] is {lse.dtype} on {lse.device}; wanted floats on {output.device}")
