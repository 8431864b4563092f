import json

import pytest

from gnomon.core.errors import UsageError
from gnomon.forecast import opgraphs
from gnomon.forecast.opgraphs import Key, joined

from .pack_files import LAYER, node, write_graphs

pytest.importorskip("pyarrow")

INFERENCE, TRAINING = (Key("toy", mode, 64, 4, "") for mode in ("inf", "train"))


def read(folder, nodes=None, layers=3):
    return opgraphs.read(write_graphs(folder, layers, nodes))


def names(graph):
    return [op.name.removeprefix("aten.").partition(".")[0] for op in graph.ops]


def test_prologue_and_epilogue_count_once_and_the_layer_as_often_as_the_model_has_it(tmp_path):
    ops = names(read(tmp_path, layers=5)[INFERENCE].forward)
    assert (ops.count("embedding"), ops.count("_softmax"), ops.count("mm")) == (1, 5, 5 + 1)


def test_arithmetic_of_the_products_is_that_of_their_shapes(tmp_path):
    graph = read(tmp_path, layers=2)[INFERENCE].forward
    products = sum(op.flop for op in graph.ops if op.category == "matmul")
    assert products == 2 * (2 * 256 * 256 * 512) + 2 * 256 * 512 * 1000


def test_dropout_is_free_at_inference_and_writes_a_mask_in_training(tmp_path):
    traced = read(tmp_path)
    assert "native_dropout" not in names(traced[INFERENCE].forward)
    dropout = next(op for op in traced[TRAINING].forward.ops if "dropout" in op.name)
    assert dropout.moved_bytes == (4 + 4 + 1) * 4 * 64 * 512


def test_sizes_and_views_move_nothing(tmp_path):
    assert not {"size", "misc"} & set(names(read(tmp_path)[INFERENCE].forward))


def test_backward_products_cost_twice_the_forward_ones(tmp_path):
    traced = read(tmp_path)[TRAINING]
    forward, backward = (
        sum(op.flop for op in g.ops if op.category == "matmul") for g in (traced.forward, traced.backward)
    )
    assert backward == 2 * forward


def test_an_output_used_twice_adds_its_gradients_and_a_size_is_no_use(tmp_path):
    used = [dict(one) for one in LAYER]
    plain = names(read(tmp_path, used)[TRAINING].backward).count("add")
    gelu = next(one for one in used if one["name"] == "gelu")
    gelu["next"] = json.dumps(["softmax", "size_1"])
    assert names(read(tmp_path, used)[TRAINING].backward).count("add") == plain
    gelu["next"] = json.dumps(["softmax", "ln"])
    assert names(read(tmp_path, used)[TRAINING].backward).count("add") == plain + 3


def test_a_broadcast_operand_is_read_at_its_own_size(tmp_path):
    mask = node("add_1", "VECadd", [[8, 16, 32], [8, 1, 1]], [8, 16, 32], fw=[["VECadd", [128, 32]]])
    graph = read(tmp_path, [mask])[INFERENCE].forward
    assert graph.ops[0].moved_bytes == 4 * (2 * 8 * 16 * 32 + 8)


def test_a_copy_is_one_only_after_a_change_of_order(tmp_path):
    for before, copies in (("transpose_1", 3), ("view_1", 0)):
        first = node(before, "misc", [[8, 16, 32]], [16, 8, 32])
        copy = node("contiguous", "contiguous", [[16, 8, 32]], [16, 8, 32], prev=[before])
        assert names(read(tmp_path, [first, copy])[INFERENCE].forward).count("clone") == copies


def test_an_unfamiliar_function_is_counted_as_traffic_and_never_free(tmp_path):
    strange = node("warp_7", "misc", [[64, 64]], [64, 64])
    graph = read(tmp_path, [strange])[INFERENCE].forward
    assert names(graph) == ["warp"] * 3
    assert graph.ops[0].moved_bytes == 2 * 4 * 64 * 64


def test_a_fused_group_reads_what_comes_from_outside_and_writes_its_result(tmp_path):
    kinds = [["VECdivu", [128, 32]], ["VECadd", [128, 32]], ["VECsoftmax", [128, 32]]]
    fused = node("truediv~add~softmax", "fused", [[8, 1, 32], [8, 16, 32]], [8, 16, 32], fw=kinds)
    op = read(tmp_path, [fused])[INFERENCE].forward.ops[0]
    assert op.name == "fused[divu+add+softmax]"
    assert op.moved_bytes == 4 * (8 * 32 + 2 * 8 * 16 * 32)


def test_rows_of_a_whole_trace_count_once(tmp_path):
    whole = [{**one, "section": "whole"} for one in LAYER]
    assert names(read(tmp_path, whole, layers=9)[INFERENCE].forward).count("_softmax") == 1


def test_a_model_without_a_layer_count_is_named(tmp_path):
    path = write_graphs(tmp_path)
    (tmp_path / "models.json").write_text(json.dumps({"other": {"n_layer": 3}}))
    with pytest.raises(UsageError, match=r"toy: no layer count; wanted one of .*it has other.*--models"):
        opgraphs.read(path)
    (tmp_path / "mine.json").write_text(json.dumps({"toy": {"num_hidden_layers": 2}}))
    assert len(opgraphs.read(path, tmp_path / "mine.json")) == 2


def test_models_that_are_no_json_are_refused(tmp_path):
    path = write_graphs(tmp_path)
    (tmp_path / "models.json").write_text("{")
    with pytest.raises(UsageError, match=r"models\.json: cannot be read"):
        opgraphs.read(path)


def test_a_shape_that_is_none_is_refused_with_its_graph(tmp_path):
    with pytest.raises(UsageError, match="toy/inf/64/4/: a shape cannot be read"):
        read(tmp_path, [node("dense", "Linear", [["L", 256]], ["L", 512], fw=[["Linear", ["L", 256, 512]]])])


def test_joining_two_graphs_keeps_every_operator_and_its_operands(tmp_path):
    traced = read(tmp_path)[TRAINING]
    whole = joined(traced.forward, traced.backward)
    assert len(whole.ops) == len(traced.forward.ops) + len(traced.backward.ops)
    last = whole.ops[-1]
    assert whole.shapes(last.outputs) == traced.backward.shapes(traced.backward.ops[-1].outputs)
