import pytest
import torch
from torch import nn

from gnomon.core.errors import UsageError
from gnomon.forecast.parallel.micro import batch_of, micro_batch
from gnomon.forecast.parallel.tensor import tensor_parallel
from gnomon.workload.capture import capture

from .build import assert_sound, language, mlp, shapes

ALL = (
    "matmul",
    "attention",
    "softmax",
    "normalization",
    "convolution",
    "pooling",
    "gather",
    "reduction",
    "elementwise",
)


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("fused", [True, False])
def test_a_micro_batch_is_the_step_at_a_smaller_batch(mode, count, fused):
    ours = micro_batch(language(mode, batch=4, fused=fused), count)
    assert_sound(ours)
    theirs = language(mode, batch=4 // count, fused=fused)
    assert shapes(ours, *ALL) == shapes(theirs, *ALL)
    # the loss's gradient is one number that repeats itself: a part of it counts as a part of its 4 bytes
    assert sum(op.moved_bytes for op in ours.ops) == pytest.approx(sum(op.moved_bytes for op in theirs.ops), abs=4)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_convolutions_are_divided_by_images(mode):
    stack = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    large, small = (capture(stack, torch.randn(n, 3, 16, 16), name="cnn", mode=mode) for n in (6, 2))
    assert shapes(micro_batch(large, 3), *ALL) == shapes(small, *ALL)


def test_it_goes_with_tensor_parallelism_in_either_order():
    graph = language("training", batch=4)
    first = micro_batch(tensor_parallel(graph, 2).graph, 2)
    second = tensor_parallel(micro_batch(graph, 2), 2).graph
    assert shapes(first, *ALL, "collective")[:-1] == shapes(second, *ALL, "collective")[:-1]


def test_parameters_their_gradients_and_updates_stay_whole():
    graph = language("training", batch=4)
    part = micro_batch(graph, 4)
    for role in ("parameter", "gradient", "optimizer_state"):
        assert [s.bytes for s in part.storages if s.role == role] == [s.bytes for s in graph.storages if s.role == role]
    assert [op for op in part.ops if op.phase == "optimizer"] == [op for op in graph.ops if op.phase == "optimizer"]


def test_a_count_that_does_not_divide_the_batch_is_refused():
    assert batch_of(language(batch=4)) == 4
    with pytest.raises(UsageError, match="3 micro-batches do not divide the batch of 4; choose a divisor of 4"):
        micro_batch(language(batch=4), 3)
    with pytest.raises(UsageError, match="wanted at least 1 micro-batch; got 0"):
        micro_batch(mlp(), 0)


def test_a_graph_without_a_batch_is_refused():
    alone = capture(lambda x: x * 2, torch.tensor(1.0), name="scalar")
    with pytest.raises(UsageError, match="need inputs with a batch axis"):
        micro_batch(alone, 2)
