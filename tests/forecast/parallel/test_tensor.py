import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gnomon.core.errors import UsageError
from gnomon.forecast.parallel.tensor import tensor_parallel
from gnomon.workload.capture import capture

from .build import Language, Mlp, assert_sound, collectives, language, mlp, shapes

EVERY = ("matmul", "attention", "softmax", "normalization", "elementwise", "copy", "optimizer")
HELD = ("parameter", "gradient", "optimizer_state")
MODES = ("inference", "training")


@given(st.sampled_from([2, 4, 8, 16]), st.integers(1, 5))
def test_a_pure_mlp_has_its_share_of_the_flop_and_one_all_reduce_of_its_result(degree, rows):
    graph = mlp(rows=rows)
    split = tensor_parallel(graph, degree)
    assert split.graph.flop == pytest.approx(graph.flop / degree)
    (reduced,) = collectives(split.graph)
    assert reduced.name == "gnomon.all_reduce"
    assert reduced.attributes["bytes"] == 4 * rows * 16
    assert split.graph.parameters == graph.parameters / degree


@pytest.mark.parametrize("mode", MODES)
def test_one_device_has_the_graph_as_it_is(mode):
    assert tensor_parallel(language(mode), 1).graph is language(mode)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("degree", [2, 4])
def test_each_device_runs_the_step_of_a_model_with_fewer_heads_columns_and_words(degree, mode, fused):
    # the oracle is torch itself: the same model with 1/degree of the heads, the width and the vocabulary
    split = tensor_parallel(language(mode, fused=fused), degree).graph
    local = language(mode, fused=fused, heads=4 // degree, width=64 // degree, vocabulary=32 // degree)
    assert_sound(split)
    assert shapes(split, *EVERY) == shapes(local, *EVERY)
    assert split.parameters == local.parameters
    assert sum(s.bytes for s in split.storages if s.role in HELD) == sum(
        s.bytes for s in local.storages if s.role in HELD
    )


@pytest.mark.parametrize("fused", [True, False])
def test_two_sums_a_layer_each_way_where_megatron_has_them(fused):
    graph = tensor_parallel(language("training", layers=3, fused=fused), 2).graph
    size = 4 * 4 * 8 * 16
    forward, backward = (
        [op for op in collectives(graph, phase) if op.attributes["bytes"] == size] for phase in ("forward", "backward")
    )
    assert len(forward) == 1 + 2 * 3  # the embedding's, then attention and MLP
    assert len(backward) == 2 * 3 + 1  # and the head's input
    assert {op.name for op in (*forward, *backward)} == {"gnomon.all_reduce"}


@pytest.mark.parametrize("mode", MODES)
def test_norms_and_residuals_stay_whole(mode):
    graph = language(mode)
    assert shapes(tensor_parallel(graph, 4).graph, "normalization") == shapes(graph, "normalization")


def test_the_vocabulary_is_divided_in_table_head_gradient_and_optimizer():
    graph = language("training")
    split = tensor_parallel(graph, 4).graph
    whole = sum(s.bytes for s in graph.storages if s.role == "optimizer_state")
    here = sum(s.bytes for s in split.storages if s.role == "optimizer_state")
    kept = 4 * 16 * (5 * 2 + 2 * 2)  # norms, and what is added after a sum over devices
    assert here < whole / 4 + 2 * 4 * kept
    assert split.parameters < graph.parameters / 4 + kept
    tables = [i for op in split.ops if op.category == "gather" and op.phase == "forward" for i in op.inputs[:1]]
    assert split.tensors[tables[0]].shape == (8, 16)


def test_a_vocabulary_that_the_degree_does_not_divide_stays_whole_and_is_told():
    split = tensor_parallel(language(vocabulary=33), 4)
    assert "tensor parallel: head left whole: 4 does not divide 33" in split.remarks
    assert shapes(split.graph, "gather") == shapes(language(vocabulary=33), "gather")


def test_in_inference_the_logits_are_gathered():
    last = tensor_parallel(language(), 2).graph.ops[-1]
    assert (last.name, last.attributes["bytes"]) == ("gnomon.all_gather", 4 * 4 * 8 * 32)


def test_heads_that_the_degree_does_not_divide_leave_attention_whole_but_not_the_mlp():
    graph = language(heads=2, size=8)
    split = tensor_parallel(graph, 4)
    assert shapes(split.graph, "attention") == shapes(graph, "attention")
    assert any("attention.qkv" in remark and "does not divide 2" in remark for remark in split.remarks)
    assert split.pairs == 2  # the MLP of each of two layers


def test_a_degree_that_divides_nothing_names_what_it_must_divide():
    with pytest.raises(UsageError, match=r"degree of 5 divides none of .*: 16, 32, 48, 64\. Choose a divisor"):
        tensor_parallel(language(), 5)
    with pytest.raises(UsageError, match="at least 1; got 0"):
        tensor_parallel(mlp(), 0)


def test_a_model_without_pairs_of_products_is_refused():
    convolutions = capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.randn(2, 3, 8, 8), name="cnn")
    with pytest.raises(UsageError, match="nothing to divide among 2 devices: wanted two products"):
        tensor_parallel(convolutions, 2)


def test_a_normalization_of_the_columns_keeps_a_product_whole():
    stack = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    graph = capture(stack, torch.randn(4, 16), name="normed")
    split = tensor_parallel(graph, 2)
    before, after = shapes(graph, "matmul"), shapes(split.graph, "matmul")
    assert before[0] == after[0]
    assert [a[3] * 2 == pytest.approx(b[3], rel=0.1) for a, b in zip(after[1:], before[1:], strict=True)] == [
        True,
        True,
    ]


def test_names_do_not_matter():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.zzz, self.head = Mlp(16, 64), nn.Identity()
            self.zzz.lm_head = self.zzz.up

        def forward(self, x):
            return self.head(self.zzz(x))

    plain, odd = (capture(m, torch.randn(8, 16), name="x") for m in (Mlp(16, 64), Odd()))
    assert shapes(tensor_parallel(plain, 4).graph, "matmul") == shapes(tensor_parallel(odd, 4).graph, "matmul")


@pytest.mark.parametrize("mode", MODES)
def test_a_gated_mlp_with_both_products_in_one_is_divided(mode):
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.down = nn.Linear(16, 128, bias=False), nn.Linear(64, 16, bias=False)

        def forward(self, x):
            gate, up = self.both(x).chunk(2, -1)
            return self.down(nn.functional.silu(gate) * up)

    graph = capture(Gated(), torch.randn(8, 16), name="gated", mode=mode)
    split = tensor_parallel(graph, 4).graph
    assert_sound(split)
    products = [op for op in split.ops if op.category == "matmul"]
    whole = [op for op in graph.ops if op.category == "matmul"]
    assert sum(op.flop for op in products) == pytest.approx(sum(op.flop for op in whole) / 4)
    assert len(collectives(split)) == 1  # the input needs no gradient


def test_a_vocabulary_parallel_loss_exchanges_two_numbers_a_row():
    class Scored(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Language(layers=1)

        def forward(self, tokens):
            logits = self.model(tokens)
            return nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())

    ids = torch.zeros(2, 8, dtype=torch.long)
    graph = capture(Scored(), ids, name="scored", mode="training", loss="mean")
    split = tensor_parallel(graph, 4).graph
    assert_sound(split)
    small = [op.attributes["bytes"] for op in collectives(split) if op.attributes["bytes"] < 4 * 2 * 8 * 16]
    assert small.count(2 * 4 * 16) == 2  # largest and sum of 16 rows, forward and backward
    losses = [op for op in split.ops if "log_softmax" in op.name]
    assert all(split.tensors[op.outputs[0]].shape[-1] == 8 for op in losses)


@pytest.mark.parametrize("mode", MODES)
@given(degree=st.sampled_from([2, 4]))
def test_nothing_is_lost_or_made_up(mode, degree):
    graph = language(mode)
    split = tensor_parallel(graph, degree).graph
    own = [op for op in split.ops if op.category != "collective"]
    assert [op.name for op in own] == [op.name for op in graph.ops]
    for here, whole in zip(own, graph.ops, strict=True):
        assert whole.flop / degree * (1 - 1e-12) <= here.flop <= whole.flop
        assert whole.moved_bytes / degree * (1 - 1e-9) <= here.moved_bytes <= whole.moved_bytes
    assert math.fsum(s.bytes for s in split.storages) < math.fsum(s.bytes for s in graph.storages)
