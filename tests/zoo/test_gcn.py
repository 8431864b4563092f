import pytest
import torch

from gnomon.zoo.graph import gcn


def test_a_layer_is_the_dense_formula():
    torch.manual_seed(0)
    layer = gcn.GraphConvolution(5, 3).double()
    edges = torch.tensor([[0, 1, 2, 2, 3], [1, 0, 1, 3, 2]])
    x = torch.randn(4, 5, dtype=torch.float64)
    adjacency = torch.eye(4, dtype=torch.float64)
    for source, target in edges.T.tolist():
        adjacency[target, source] += 1
    degree = adjacency.sum(1)
    expected = adjacency / (degree[:, None] * degree[None, :]).sqrt() @ x @ layer.combine.weight.T + layer.bias
    torch.testing.assert_close(layer(x, edges, degree.rsqrt()), expected)


def test_renaming_nodes_permutes_the_scores():
    torch.manual_seed(0)
    model = gcn.build(8, 6, 4, 2).double()
    inputs = gcn.examples({"V": 30, "E": 90, "F": 8}, seed=1)
    x, edges = inputs["features"].double(), inputs["edge_index"]
    new_name = torch.randperm(30)
    moved = torch.empty_like(x)
    moved[new_name] = x
    torch.testing.assert_close(model(moved, new_name[edges])[new_name], model(x, edges))


def test_gradients_match_finite_differences():
    torch.manual_seed(0)
    layer = gcn.GraphConvolution(3, 2).double()
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    scale = torch.rand(3, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(lambda t: layer(t, edges, scale), x)


def test_the_generated_graph_has_hubs():
    edges = gcn.examples({"V": 1000, "E": 8000, "F": 4}, seed=0)["edge_index"]
    degree = torch.bincount(edges[1], minlength=1000).sort(descending=True).values
    assert degree[:10].sum() > 10 * 10 * 8  # the top 1 % have over ten times the mean degree
    assert edges.shape == (2, 8000)


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="sizes must be positive"):
        gcn.build(8, 0, 3, 2)
