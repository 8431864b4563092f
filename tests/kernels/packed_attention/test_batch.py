import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.kernels.packed_attention import pack, pad, unpack

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


@given(LENGTHS)
def test_a_list_comes_back_as_it_was(lengths):
    sequences = [torch.randn(n, 3) for n in lengths]
    batch = pack(sequences)
    assert (
        batch.cu_seqlens.tolist()
        == [0, *torch.tensor([n for n in lengths if n] or [0]).cumsum(0).tolist()][: 1 + sum(n > 0 for n in lengths)]
    )
    assert batch.max_seqlen == max(lengths)
    for a, b in zip(unpack(batch), sequences, strict=True):
        assert torch.equal(a, b)


@given(st.integers(0, 4), st.integers(0, 7), st.integers(0, 99))
def test_a_padded_batch_comes_back_with_zeros_for_padding(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, length, 2, generator=generator)
    mask = torch.rand(rows, length, generator=generator) > 0.4  # padding anywhere, rows without a token too
    batch = pack(x, mask)
    assert torch.equal(pad(batch), x * mask[..., None])
    assert batch.lengths == tuple(mask.sum(1).tolist())
    for one, row, own in zip(unpack(batch), x, mask, strict=True):
        assert torch.equal(one, row[own])


def test_what_operators_made_goes_back_to_the_same_places():
    ids, mask = torch.tensor([[5, 6, 0], [7, 0, 0]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    batch = pack(ids, mask)
    assert batch.tokens.tolist() == [5, 6, 7]
    wide = pad(batch.of(batch.tokens[:, None] * torch.tensor([1.0, 10.0])))
    assert wide.tolist() == [[[5, 50], [6, 60], [0, 0]], [[7, 70], [0, 0], [0, 0]]]
    with pytest.raises(ValueError, match=r"tokens must be \[3, ...\], one for each; got \[2\]"):
        batch.of(torch.zeros(2))


def test_a_list_is_padded_to_its_longest():
    assert pad(pack([torch.tensor([1, 2]), torch.tensor([3])])).tolist() == [[1, 2], [3, 0]]


@pytest.mark.parametrize(
    ("sequences", "mask", "message"),
    [
        ([], None, "sequences must hold at least one tensor"),
        ([torch.zeros(2)], torch.ones(1, 2), "mask belongs to a padded batch"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], None, r"number 1 is \[2, 4\] of torch.float32"),
        ([torch.zeros(2), torch.zeros(2).long()], None, "number 1 is .* of torch.int64"),
        (torch.zeros(2, 3), None, r"mask must be \[B, L\] of sequences \[2, 3\]; got none"),
        (torch.zeros(2, 3), torch.ones(2, 2), r"mask must be \[B, L\] of sequences \[2, 3\]; got shape \[2, 2\]"),
    ],
)
def test_bad_arguments_are_named(sequences, mask, message):
    with pytest.raises(ValueError, match=message):
        pack(sequences, mask)
