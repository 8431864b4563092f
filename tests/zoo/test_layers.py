"""Every model, in every order and by every way of summing, against dense matrices written out here."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gnomon.core.errors import UsageError
from gnomon.zoo.graph import gcn, layers, neighbours
from gnomon.zoo.graph.generate import power_law, uniform
from gnomon.zoo.graph.graph import Graph

KINDS = sorted(layers.LAYERS)
WAYS = sorted(neighbours.IMPLEMENTATIONS)


def counts(graph, loops=False):
    """[V, V], how many edges lead from the column to the row; with loops, every vertex has one to itself at least."""
    matrix = torch.zeros(graph.vertices, graph.vertices, dtype=torch.float64)
    for source, target in zip(graph.sources.tolist(), graph.targets.tolist(), strict=True):
        matrix[target, source] += 1
    if loops:
        for vertex in range(graph.vertices):
            matrix[vertex, vertex] = max(matrix[vertex, vertex].item(), 1.0)
    return matrix


def dense(layer, graph, x):
    """What the papers' formulas say, with dense matrices and loops."""
    if isinstance(layer, layers.GCNLayer):
        adjacency = counts(graph, loops=True)
        scale = adjacency.sum(1).rsqrt()
        return layer.activation(torch.diag(scale) @ adjacency @ torch.diag(scale) @ x @ layer.linear.weight.T)
    if isinstance(layer, layers.SAGELayer) and layer.reduce == "mean":
        adjacency = counts(graph)
        mean = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1) @ x
        return layer.activation(x @ layer.own.weight.T + mean @ layer.others.weight.T)
    if isinstance(layer, layers.SAGELayer):
        top = torch.zeros_like(x)
        for vertex in range(graph.vertices):
            into = graph.sources[graph.targets == vertex]
            if len(into):
                top[vertex] = x[into].max(0).values
        return layer.activation(x @ layer.own.weight.T + top @ layer.others.weight.T)
    if isinstance(layer, layers.GINLayer):
        total = (1 + layer.eps) * x + counts(graph) @ x
        first, _, second = layer.mlp
        hidden = (total @ first.weight.T + first.bias).clamp(min=0)
        return layer.activation(hidden @ second.weight.T + second.bias)
    adjacency, outputs = counts(graph, loops=True), []
    for head in range(layer.heads):
        size = layer.out_features // layer.heads
        z = x @ layer.linear.weight[head * size : (head + 1) * size].T
        out = torch.zeros_like(z)
        for vertex in range(graph.vertices):
            weights = torch.zeros(graph.vertices, dtype=x.dtype)
            for other in range(graph.vertices):
                if adjacency[vertex, other] > 0:
                    score = (layer.of_source[head] @ z[other] + layer.of_target[head] @ z[vertex]).item()
                    weights[other] = adjacency[vertex, other] * math.exp(score if score > 0 else 0.2 * score)
            out[vertex] = weights / weights.sum() @ z
        outputs.append(out)
    return layer.activation(torch.cat(outputs, 1))


def build(kind, f, h, activation=layers.same):
    torch.manual_seed(1)
    made = layers.GATLayer(f, h, activation, heads=2) if kind == "gat" else layers.LAYERS[kind](f, h, activation)
    return made.double().eval()


def ready(layer, graph, way="csr", dtype=torch.float64):
    return neighbours.IMPLEMENTATIONS[way](*layer.edges(graph, dtype))


GRAPHS = {
    "skewed": power_law(30, 140, seed=3, largest=12),
    "doubled edges": Graph.of_edges(3, [[0, 0, 0, 2, 1], [1, 1, 2, 2, 1]]),
    "isolated vertices": Graph.of_edges(6, [[0, 5], [5, 0]]),
    "a hub": Graph.of_edges(12, [list(range(1, 12)), [0] * 11]),
    "no edges": Graph.of_edges(4, torch.zeros(2, 0, dtype=torch.int64)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_layer_is_its_dense_formula_in_every_legal_order(kind, way, name):
    graph = GRAPHS[name]
    layer, x = build(kind, 5, 4, torch.tanh), torch.randn(graph.vertices, 5, dtype=torch.float64)
    with torch.inference_mode():
        expected = dense(layer, graph, x)
        for order in layer.orders:
            torch.testing.assert_close(layer(x, ready(layer, graph, way), order), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("way", ["csr", "scatter"])
def test_the_largest_of_the_neighbours_is_the_dense_formula(way):
    layer = layers.SAGELayer(3, 2, reduce="max").double()
    for graph in GRAPHS.values():
        x = torch.randn(graph.vertices, 3, dtype=torch.float64)
        torch.testing.assert_close(layer(x, ready(layer, graph, way)), dense(layer, graph, x))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("kind", ["gcn", "graphsage"])
def test_both_orders_give_the_same(kind, dtype, tolerance):
    graph = power_law(500, 4000, seed=0)
    model, x = layers.network(kind, [64, 16, 7], seed=0).to(dtype), torch.randn(500, 64, dtype=dtype)
    prepared = model.prepare(graph)
    with torch.inference_mode():
        first, second = (model(x, prepared, order) for order in ("aggregate-first", "combine-first"))
    assert (first - second).norm() <= tolerance * second.norm()


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6))
def test_renaming_the_vertices_permutes_the_outputs_and_nothing_else(kind, seed):
    graph = power_law(20, 60, seed=seed, largest=9)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    model, x = layers.network(kind, [6, 8, 3], seed=0).double(), torch.randn(20, 6, dtype=torch.float64)
    with torch.inference_mode():
        plain = model(x, model.prepare(graph))
        renamed = model(x[order], model.prepare(graph.renamed(order.numpy())))
    torch.testing.assert_close(renamed, plain[order])


@pytest.mark.parametrize("way", WAYS)
def test_attention_over_the_neighbours_of_every_vertex_sums_to_one(way):
    graph, layer = GRAPHS["skewed"], build("gat", 5, 4)
    prepared = ready(layer, graph, way)
    with torch.inference_mode():
        _, *scores = layer.combine(1e5 * torch.randn(30, 5, dtype=torch.float64))
        weight = layer.weights(*scores, prepared)
    assert (weight >= 0).all()
    total = torch.zeros(30, 2, dtype=torch.float64).index_add(0, prepared.target_E, weight)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_the_phased_layer_is_the_one_of_the_shipped_task():
    graph = uniform(50, 200, seed=5)
    keep = graph.sources != graph.targets
    graph = Graph.of_edges(50, [graph.sources[keep], graph.targets[keep]])
    shipped, phased = gcn.build(8, 6, 3, 2).double(), layers.network("gcn", [8, 6, 3], seed=0).double()
    for ours, theirs in zip(phased.layers, shipped.layers, strict=True):
        ours.linear.weight, ours.bias = theirs.combine.weight, theirs.bias
    x, edges = (
        torch.randn(50, 8, dtype=torch.float64),
        torch.stack([torch.from_numpy(graph.sources), torch.from_numpy(graph.targets)]),
    )
    torch.testing.assert_close(phased(x, phased.prepare(graph)), shipped(x, edges))


def test_edges_in_random_order_scatter_to_the_same_sums():
    graph, x = GRAPHS["skewed"], torch.randn(30, 4, dtype=torch.float64)
    weight = torch.rand(graph.edges, dtype=torch.float64)
    sorted_, shuffled = neighbours.Scatter(graph, weight), neighbours.Scatter(graph, weight, shuffle=0)
    assert not torch.equal(sorted_.source_E, shuffled.source_E)
    torch.testing.assert_close(shuffled.sum(x), sorted_.sum(x))


def test_fused_phases_give_what_two_phases_give():
    graph, layer = uniform(5000, 20000, seed=0), build("gcn", 6, 3, torch.relu)  # more than two blocks of rows
    prepared, x = ready(layer, graph), torch.randn(5000, 6, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(layer.fused(x, prepared), layer(x, prepared))


@pytest.mark.parametrize("width", [1, 64, 65, 200])
def test_tiles_of_features_change_nothing(width):
    graph, x = GRAPHS["skewed"], torch.randn(30, width, dtype=torch.float64)
    weight = torch.rand(graph.edges, dtype=torch.float64)
    torch.testing.assert_close(neighbours.Tiled(graph, weight).sum(x), neighbours.Csr(graph, weight).sum(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", [1, 3])
def test_a_graph_without_vertices_and_one_feature_are_no_special_case(kind, features):
    model = layers.network(kind, [features, 8, 2], seed=0)
    for vertices in (0, 1, 3):
        graph = Graph.of_edges(vertices, torch.zeros(2, 0, dtype=torch.int64))
        for way in WAYS:
            out = model(torch.ones(vertices, features), model.prepare(graph, neighbours.IMPLEMENTATIONS[way]))
            assert out.shape == (vertices, 2)
            assert torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("kind", "order"),
    [(kind, order) for kind in KINDS for order in layers.network(kind, [8, 8], seed=0).orders],
)
def test_counted_flop_of_products_are_those_that_torch_counts(kind, order):
    graph = uniform(40, 160, seed=0)
    model = layers.network(kind, [24, 16, 5], seed=0)
    state, counted, stated = (torch.randn(40, 24),), 0, 0
    for _, step in model.steps(model.prepare(graph), order):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            state = step.run(state)
        if step.phase == "combination":
            counted, stated = counted + counter.get_total_flops(), stated + step.work.gemm_flop
    assert counted == stated > 0


def test_the_sum_over_neighbours_counts_two_flop_an_edge_and_feature_and_moves_over_four_times_as_many_bytes():
    graph = uniform(100, 700, seed=0)
    for width in (1, 16, 1024):
        layer = layers.GINLayer(width, 8)
        step = layer.steps(ready(layer, graph, dtype=torch.float32), "aggregate-first")[0]
        own = 2 * 100 * width
        assert step.work.flop - own == 2 * 700 * width
        assert step.work.bytes_moved == 700 * (4 * width + 8) + 3 * 4 * 100 * width
        assert step.work.flop / step.work.bytes_moved < 0.5


def test_steps_run_one_after_the_other_are_the_forward_pass():
    graph, model = GRAPHS["skewed"], layers.network("graphsage", [5, 6, 2], seed=0)
    prepared, x = model.prepare(graph), torch.randn(30, 5)
    state = (x,)
    for _, step in model.steps(prepared, "combine-first"):
        state = step.run(state)
    torch.testing.assert_close(state[0], model(x, prepared, "combine-first"))
    assert [i for i, _ in model.steps(prepared)] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.GINLayer(3, 4), "its MLP is not linear"),
        (layers.SAGELayer(3, 4, reduce="max"), "a maximum over neighbours is not linear"),
    ],
)
def test_a_layer_that_is_not_linear_does_not_combine_first(layer, reason):
    graph = GRAPHS["a hub"]
    with pytest.raises(UsageError, match=reason):
        layer(torch.ones(12, 3), ready(layer, graph, dtype=torch.float32), "combine-first")


def test_attention_does_not_aggregate_first():
    model = layers.network("gat", [3, 8, 2], seed=0)
    with pytest.raises(UsageError, match="computed from combined features"):
        model.steps(model.prepare(GRAPHS["a hub"]), "aggregate-first")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_no_numbers_are_refused_by_name(bad):
    model, x = layers.network("gcn", [4, 2], seed=0), torch.ones(12, 4)
    x[7, 2] = bad
    with pytest.raises(UsageError, match=f"feature 2 of vertex 7 is {bad}"):
        model(x, model.prepare(GRAPHS["a hub"]))


def test_features_of_another_shape_are_refused():
    model = layers.network("gin", [4, 2], seed=0)
    with pytest.raises(UsageError, match=r"wanted features of the shape \(12, 4\); got \(12, 5\)"):
        model(torch.ones(12, 5), model.prepare(GRAPHS["a hub"]))


def test_a_hub_is_not_padded():
    graph = Graph.of_edges(100, [list(range(1, 100)), [0] * 99])
    assert neighbours.Padded.why_not(GRAPHS["skewed"]) is None
    with pytest.raises(UsageError, match=r"9900 slots for 99 edges, 100 for each, because one vertex has 99\. Use csr"):
        neighbours.Padded(graph, torch.ones(99))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.network("gnn", [3, 2], seed=0), "no graph layer is called 'gnn'. Known: gcn, graphsage"),
        (lambda: layers.network("gcn", [3], seed=0), "at least one layer"),
        (lambda: layers.GATLayer(3, 5, heads=2), "2 heads and 5 features"),
        (lambda: layers.GCNLayer(0, 5), "at least 1 feature in and out; got 0 and 5"),
        (lambda: layers.SAGELayer(3, 5, reduce="sum"), "by 'mean' or 'max'; got 'sum'"),
        (lambda: neighbours.implementation("csc"), "not summed by 'csc'. Did you mean 'csr'"),
    ],
)
def test_what_cannot_be_built_says_why(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_the_same_seed_gives_the_same_network_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    first, second, other = (layers.network("gat", [4, 8, 3], seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["layers.0.linear.weight"], other["layers.0.linear.weight"])
    assert isinstance(layers.network("gin", [4, 8, 3], seed=1).layers, nn.ModuleList)
