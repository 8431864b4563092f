import json

import torch
from torch import nn

from gnomon.core.records import from_json, to_json
from gnomon.workload import capture, diff
from tests.workload.tasks import family


def mlp(act, width=8):
    return capture.capture(nn.Sequential(nn.Linear(8, width), act, nn.Linear(width, 2)), torch.randn(4, 8), name="mlp")


def test_a_graph_does_not_differ_from_itself():
    graph = capture.capture_task(family("T5", "training"))
    found = diff.diff(graph, graph)
    assert found.is_empty
    assert "run the same operators" in diff.render(found)


def test_a_replaced_activation_is_one_operator_removed_and_one_added():
    found = diff.diff(mlp(nn.ReLU()), mlp(nn.Tanh()))
    assert [(c.kind, c.name, c.module) for c in found.changes] == [
        ("removed", "aten.relu.default", "1"),
        ("added", "aten.tanh.default", "1"),
    ]
    assert "- relu 1 forward" in diff.render(found)
    assert "+ tanh 1 forward" in diff.render(found)


def test_a_wider_layer_changes_shapes_flop_and_bytes_of_what_touches_it():
    found = diff.diff(mlp(nn.ReLU()), mlp(nn.ReLU(), width=16))
    products = {c.module: c for c in found.changes if c.name == "aten.addmm.default"}
    assert {c.kind for c in products.values()} == {"changed"}
    assert products["2"].shapes_a == ((2,), (4, 8), (8, 2))
    assert products["2"].shapes_b == ((2,), (4, 16), (16, 2))
    assert products["2"].flop_b - products["2"].flop_a == 2 * 4 * 8 * 2
    assert found.flop_b > found.flop_a


def test_a_diff_is_the_mirror_of_its_reverse():
    a, b = mlp(nn.ReLU()), mlp(nn.Tanh(), width=16)
    forth, back = diff.diff(a, b), diff.diff(b, a)
    mirror = {"added": "removed", "removed": "added", "changed": "changed"}
    assert {(c.name, c.module, mirror[c.kind], c.flop_b) for c in forth.changes} == {
        (c.name, c.module, c.kind, c.flop_a) for c in back.changes
    }


def test_a_diff_survives_json():
    found = diff.diff(mlp(nn.ReLU()), mlp(nn.Tanh(), width=16))
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
