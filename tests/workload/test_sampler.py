import itertools
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from gnomon.workload.sampler import LengthAwareSampler

LENGTHS = (
    torch.empty(2000).log_normal_(3.87, 0.55, generator=torch.Generator().manual_seed(0)).clamp(8, 256).int().tolist()
)


def computed(batches, lengths=LENGTHS):
    """Tokens with padding for each token without."""
    return sum(max(lengths[i] for i in one) * len(one) for one in batches) / sum(
        lengths[i] for one in batches for i in one
    )


@given(
    st.lists(st.integers(0, 50), max_size=60), st.none() | st.integers(1, 9), st.none() | st.integers(1, 150),
    st.booleans(), st.integers(1, 4), st.integers(0, 5),
)  # fmt: skip
def test_every_sample_is_in_one_batch_within_the_limits(lengths, size, budget, count_padding, window, epoch):
    if size is None and budget is None:
        size = 3
    sampler = LengthAwareSampler(lengths, size, token_budget=budget, count_padding=count_padding, window=window)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    assert len(batches) == len(sampler)
    for one in batches:
        own = [lengths[i] for i in one]
        assert size is None or len(one) <= size
        assert budget is None or len(one) == 1 or (max(own) * len(one) if count_padding else sum(own)) <= budget


def test_batches_hold_samples_of_similar_length_in_random_order():
    shuffled = torch.randperm(2000, generator=torch.Generator().manual_seed(1)).tolist()
    at_random = [shuffled[i : i + 16] for i in range(0, 2000, 16)]
    batches = list(LengthAwareSampler(LENGTHS, 16, window=50))
    assert computed(batches) < 1.1 < 2 < computed(at_random)
    means = [statistics.mean(LENGTHS[i] for i in one) for one in batches]
    assert abs(statistics.correlation(range(len(means)), means)) < 0.3  # sorted batches would be at 1


def test_no_window_mixes_the_whole_epoch():
    narrow = list(LengthAwareSampler(LENGTHS, 16, window=1))
    wide = list(LengthAwareSampler(LENGTHS, 16, window=1000))
    assert computed(wide) < computed(list(LengthAwareSampler(LENGTHS, 16, window=8))) < computed(narrow)
    orders = [LengthAwareSampler(LENGTHS, 16, window=1000) for _ in range(2)]
    orders[1].set_epoch(1)
    a, b = ({frozenset(one) for one in order} for order in orders)
    assert len(a & b) < len(a) / 10  # equal lengths are shuffled before they are sorted


def test_an_epoch_is_the_same_again_and_another_is_not():
    one, same, other, seeded = (LengthAwareSampler(LENGTHS, 16, seed=s) for s in (3, 3, 3, 4))
    other.set_epoch(1)
    assert list(one) == list(one) == list(same)
    assert list(one) != list(other)
    assert list(one) != list(seeded)


def test_dropping_the_last_batch_leaves_out_only_what_is_cut_short():
    assert sorted(map(len, LengthAwareSampler([5] * 10, 4, drop_last=True))) == [4, 4]
    assert sorted(map(len, LengthAwareSampler([5] * 8, 4, drop_last=True))) == [4, 4]
    assert len(LengthAwareSampler([5] * 10, 4, drop_last=True)) == 2
    budget = LengthAwareSampler([5] * 10, token_budget=20, drop_last=True)
    assert sorted(map(len, budget)) == [4, 4]


def test_a_data_loader_takes_it():
    data = [torch.arange(n) for n in (3, 1, 2, 5)]
    loader = DataLoader(data, batch_sampler=LengthAwareSampler([len(x) for x in data], 2), collate_fn=list)
    assert sorted(len(x) for batch in loader for x in batch) == [1, 2, 3, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "batch_size or token_budget must say how large a batch is"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"token_budget": 0}, "token_budget must be at least 1; got 0"),
        ({"batch_size": 1, "window": 0}, "window must be at least 1; got 0"),
        ({"batch_size": 1, "lengths": [1, -2]}, "lengths must not be negative; got -2"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LengthAwareSampler(**{"lengths": [1, 2], **arguments})


def test_an_epoch_is_not_negative():
    with pytest.raises(ValueError, match="epoch must not be negative; got -1"):
        LengthAwareSampler([1], 1).set_epoch(-1)
