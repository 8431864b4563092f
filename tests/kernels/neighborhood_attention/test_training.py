"""A model that trains on our kernels goes the way of one that trains on the definition."""

import pytest
import torch
from torch import nn

from gnomon.kernels.neighborhood_attention import NeighborhoodAttention2D

from .test_semantics import OURS


class Net(nn.Module):
    def __init__(self, backend):
        super().__init__()
        self.embed = nn.Linear(1, 16)
        self.first = NeighborhoodAttention2D(16, 2, 3, rel_pos_bias=True, backend=backend)
        self.second = NeighborhoodAttention2D(16, 4, 5, stride=2, backend=backend)
        self.head = nn.Linear(16, 2)

    def forward(self, pixels):
        x = self.embed(pixels[..., None])
        x = x + self.first(x)
        return self.head((x + self.second(x)).amax((1, 2)))


def train(backend):
    """Losses of telling a bright pair of neighbours from two bright pixels that are apart."""
    torch.manual_seed(0)
    model = Net(backend)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    for _ in range(40):
        pixels, label = torch.zeros(32, 8, 8), torch.randint(2, (32,))
        row, column = torch.randint(8, (32,)), torch.randint(4, (32,))
        pixels[torch.arange(32), row, column] = 1
        pixels[torch.arange(32), row, column + torch.where(label == 1, 1, 3)] = 1
        loss = nn.functional.cross_entropy(model(pixels), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


@pytest.mark.skipif(OURS == "reference", reason="no native kernels here")
def test_forty_steps_of_training_have_the_losses_of_the_definition():
    losses = train(OURS)
    torch.testing.assert_close(losses, train("reference"), rtol=1e-3, atol=1e-4)
    assert losses[-5:].mean() < losses[:5].mean() - 0.1
