"""What the demand of an operator says beyond FLOP and bytes: read from captured graphs, checked against the layers."""

import pytest
import torch
from torch import nn

from gnomon.forecast.work import ConvolutionShape, works
from gnomon.workload.capture import capture


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_the_shape_of_a_convolution_is_that_of_its_layer_forward_and_backward(mode):
    layer = nn.Conv2d(4, 8, 3, groups=2, stride=2, padding=1)
    graph = capture(layer, torch.zeros(5, 4, 32, 16), name="made", mode=mode)
    shapes = {work.convolution for work in works(graph) if work.category == "convolution"}
    assert shapes == {ConvolutionShape(5, 2, 2, 4, kernel=9, pixels=16 * 8, source=32 * 16)}


def test_a_transposed_convolution_takes_its_channels_from_the_other_side():
    graph = capture(nn.ConvTranspose2d(8, 6, 2, stride=2), torch.zeros(1, 8, 4, 4), name="made")
    assert works(graph)[0].convolution == ConvolutionShape(1, 1, 8, 6, kernel=4, pixels=64, source=16)


def test_copies_that_reorder_memory_have_a_name_of_their_own_and_views_allocate_nothing():
    x = torch.zeros(2, 3, 32)
    graph = capture(lambda x: x.transpose(1, 2).contiguous().clone().add_(1.0), x, name="made")
    kinds = [(work.operator, work.fresh_bytes) for work in works(graph)]
    size = 4.0 * x.numel()
    assert kinds == [("transpose", 0), ("contiguous", size), ("clone", size), ("add", 0)]
