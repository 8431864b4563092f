import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gnomon.forecast.scale import at_batches
from gnomon.workload.capture import capture

BATCHES = [1, 2, 3, 4, 6, 8, 16]


class Straight(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 4)

    def forward(self, x):
        return torch.softmax(self.inner(x).reshape(-1, 2), -1)


class Pairs(nn.Module):
    """Every sample with every other one, as contrastive losses do: the square of the batch."""

    def forward(self, x):
        return torch.relu(x @ x.t())


class Steps(nn.Module):
    """Pads to a multiple of four."""

    def forward(self, x):
        return torch.relu(torch.cat([x, x.new_zeros(-len(x) % 4, 8)]))


def captures(module):
    asked = []

    def at(batch):
        asked.append(batch)
        return capture(module, torch.randn(batch, 8), name="m")

    return at, asked


@given(st.sets(st.integers(1, 40), min_size=1, max_size=7))
def test_every_graph_is_what_its_capture_would_be(batches):
    at, _ = captures(Straight())
    assert at_batches(sorted(batches), at) == {batch: at(batch) for batch in batches}


def test_three_captures_settle_a_straight_line():
    at, asked = captures(Straight())
    found = at_batches(BATCHES, at)
    assert list(found) == BATCHES
    assert len(asked) == 3


@pytest.mark.parametrize("module", [Pairs(), Steps()])
def test_what_is_no_straight_line_is_captured_at_every_batch(module):
    at, asked = captures(module)
    found = at_batches(BATCHES, at)
    assert sorted(asked) == BATCHES
    assert found == {batch: at(batch) for batch in BATCHES}


def test_a_batch_of_one_that_is_special_does_not_spoil_the_others():
    class Special(nn.Module):
        def forward(self, x):
            return torch.relu(x) if len(x) == 1 else torch.tanh(torch.relu(x))

    at, asked = captures(Special())
    assert at_batches([1, 2, 4, 8, 16, 32], at)[1].ops[-1].name == "aten.relu.default"
    assert len(asked) == 4
