"""Uneven sequences as one tensor of tokens, and back.

Axes: T tokens of all sequences together, S sequences, B sequences of a padded batch, L padded length.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """tokens: [T, ...], sequence after sequence. lengths: the tokens of each sequence, in order; they may be 0.

    places: int64 [T], where each token lay in the padded batch of padded_shape (B, L), row after row; both None when
    it came from a list.
    """

    tokens: Tensor
    lengths: tuple[int, ...]
    places: Tensor | None = None
    padded_shape: tuple[int, int] | None = None

    @property
    def cu_seqlens(self) -> Tensor:
        """int64 [S + 1] on the device of the tokens: where each sequence begins, and T; empty ones are left out."""
        ends = itertools.accumulate((n for n in self.lengths if n), initial=0)
        return torch.tensor(list(ends), device=self.tokens.device)

    @property
    def max_seqlen(self) -> int:
        return max(self.lengths, default=0)

    def of(self, tokens: Tensor) -> "PackedBatch":
        """The same sequences with other tokens, [T, ...] as well: what an operator made of them."""
        if tokens.shape[:1] != self.tokens.shape[:1]:
            raise ValueError(f"tokens must be [{self.tokens.shape[0]}, ...], one for each; got {list(tokens.shape)}")
        return replace(self, tokens=tokens)


def pack(sequences: Tensor | Sequence[Tensor], mask: Tensor | None = None) -> PackedBatch:
    """Sequences without their padding.

    sequences: a list of [n, ...] with equal further axes and dtype, not empty; or a padded batch [B, L, ...] with mask
    [B, L], bool or 0 and 1, True for tokens; they need not be on one side. Raises ValueError naming the argument.
    """
    if not isinstance(sequences, Tensor):
        if mask is not None:
            raise ValueError("mask belongs to a padded batch; sequences is a list")
        if not sequences:
            raise ValueError("sequences must hold at least one tensor; an empty list has no dtype and no width")
        first = sequences[0]
        for i, one in enumerate(sequences):
            if one.dim() < 1 or one.shape[1:] != first.shape[1:] or one.dtype != first.dtype:
                raise ValueError(
                    f"sequences must be [n, ...] with equal widths and dtypes; the first is {list(first.shape)} of "
                    f"{first.dtype}, number {i} is {list(one.shape)} of {one.dtype}"
                )
        return PackedBatch(torch.cat(list(sequences)), tuple(one.shape[0] for one in sequences))
    if mask is None or mask.dim() != 2 or mask.shape != sequences.shape[:2]:
        got = "none" if mask is None else f"shape {list(mask.shape)}"
        raise ValueError(f"mask must be [B, L] of sequences {list(sequences.shape)}; got {got}")
    places = mask.flatten().nonzero().flatten()
    lengths = tuple((mask != 0).sum(1).tolist())
    return PackedBatch(sequences.flatten(0, 1)[places], lengths, places, (mask.shape[0], mask.shape[1]))


def unpack(batch: PackedBatch) -> list[Tensor]:
    """The sequences, [n, ...] each, as views of the tokens."""
    return list(batch.tokens.split(list(batch.lengths)))


def pad(batch: PackedBatch) -> Tensor:
    """The padded batch [B, L, ...] that was packed, zeros where no token was; from a list, L is the longest."""
    tokens = batch.tokens
    if batch.places is None or batch.padded_shape is None:
        if not batch.lengths:
            raise ValueError("batch holds no sequence to pad")
        return torch.nn.utils.rnn.pad_sequence(unpack(batch), batch_first=True)
    rows, length = batch.padded_shape
    empty = tokens.new_zeros(rows * length, *tokens.shape[1:])
    return empty.index_copy(0, batch.places, tokens).unflatten(0, (rows, length))
