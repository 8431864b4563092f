import pytest
import torch
from torch import nn

from gnomon.core.errors import UsageError
from gnomon.workload import capture, text


@pytest.fixture(scope="module")
def graph():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)), nn.Linear(8, 2))
    return capture.capture(model, torch.randn(4, 8), name="mlp")


def test_modules_are_a_tree_in_which_equal_layers_stand_once(graph):
    lines = text.render(graph, "module").splitlines()
    assert lines[0].startswith("mlp: inference, ")
    assert any("0 x3, each" in line for line in lines)
    assert any(line.strip().startswith("3 Linear") for line in lines)
    root = next(line for line in lines if line.startswith("(root)"))
    assert root.split()[1] == str(len(graph.ops))


def test_operators_are_sorted_by_flop(graph):
    lines = text.render(graph, "operator").splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["addmm", "relu"]


def test_the_list_has_one_line_per_operator_with_its_shapes(graph):
    lines = text.render(graph, "list").splitlines()[3:]
    assert len(lines) == len(graph.ops)
    assert any("addmm 3" in line and "2 4x8 8x2 -> 4x2" in line for line in lines)


def test_unknown_operators_are_named_in_the_head():
    graph = capture.capture(torch.linalg.inv, torch.eye(3), name="inverse")
    for by in ("module", "operator"):
        rendered = text.render(graph, by)
        assert "without a cost rule, not in the FLOP above: aten.linalg_inv_ex.default x1" in rendered
        assert "(1 unknown)" in rendered
    assert "unknown" in next(line for line in text.render(graph, "list").splitlines() if line.startswith("0 "))


def test_another_grouping_is_refused(graph):
    with pytest.raises(UsageError, match="'module', 'operator' or 'list'; got 'layer'"):
        text.render(graph, "layer")
