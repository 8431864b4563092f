import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gnomon.workload import capture, memory, program
from gnomon.workload.graph import Op, OpGraph, TensorInfo
from tests.workload.tasks import Tracker, everything, family


@pytest.mark.parametrize("name", ["BERT", "ResNet", "ViT", "Swin", "Mixtral"])
def test_the_predicted_peak_of_a_training_step_is_the_tracked_one(name):
    one = family(name, "training")
    built = program.build(one)
    built.step()
    tracker = Tracker(everything(built))
    with tracker:
        built.step()
    assert memory.peak(capture.capture_task(one)).peak_bytes == pytest.approx(tracker.peak, rel=0.01)


def test_the_parts_add_up_to_the_peak_and_to_what_an_adam_step_holds():
    model = nn.Linear(50, 40)
    graph = capture.capture(model, torch.randn(2, 50), name="linear", mode="training", optimizer="adamw")
    profile = memory.peak(graph)
    weights = 4 * (50 * 40 + 40)
    assert profile.parameter_bytes == profile.gradient_bytes == weights
    assert profile.optimizer_bytes == 2 * weights + 2 * 4  # two averages, and a step counter per parameter
    assert profile.input_bytes == 4 * 2 * 50
    parts = dataclasses.asdict(profile)
    named = ("parameter_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes", "input_bytes")
    assert sum(parts[key] for key in named) == profile.peak_bytes == max(profile.timeline)
    assert profile.timeline[profile.peak_at] == profile.peak_bytes
    assert graph.ops[profile.peak_at].phase == "optimizer"


def test_inference_frees_each_activation_and_training_keeps_what_backward_needs():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(6)))
    x = torch.randn(128, 64)
    one = 4 * 128 * 64
    inference = memory.peak(capture.capture(model, x, name="mlp"))
    training = memory.peak(capture.capture(model, x, name="mlp", mode="training"))
    assert inference.activation_bytes == 3 * one  # in, between and out: the caller's frame holds a layer's input
    assert training.activation_bytes >= 6 * one


def test_an_expanded_row_takes_the_memory_of_one_row():
    graph = capture.capture(lambda x: x.expand(1000, 8), torch.randn(8), name="expand")
    assert memory.peak(graph).peak_bytes == 32


@given(depth=st.integers(2, 6))
def test_a_chain_without_observed_storages_holds_two_values_at_a_time(depth):
    tensors = tuple(TensorInfo((8,), "float32", i, "input" if i == 0 else "activation") for i in range(depth + 1))
    ops = tuple(
        Op("aten.relu.default", "", "", "forward", "elementwise", (i,), (i + 1,), 8.0, 32.0, 32.0) for i in range(depth)
    )
    profile = memory.peak(OpGraph("chain", "inference", ops, tensors, 0))
    assert profile.peak_bytes == 32 * 3  # the input stays; two neighbours live at once
    assert profile.timeline[0] == 64


def test_lifetimes_from_uses_agree_with_observed_ones_where_nothing_is_saved():
    graph = capture.capture(
        lambda x: x.relu().tanh().add_(1).view(4, 2).t() * 2, torch.randn(8), name="chain", mode="inference"
    )
    derived = memory.peak(dataclasses.replace(graph, storages=()))
    assert derived == memory.peak(graph)


def test_an_empty_graph_holds_nothing():
    profile = memory.peak(OpGraph("empty", "inference", (), (), 0))
    assert (profile.peak_bytes, profile.peak_at, profile.timeline) == (0, None, ())
