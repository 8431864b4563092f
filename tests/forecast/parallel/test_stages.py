import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.forecast.parallel.stages import cut, stage_graph

from ..build import matmul_graph
from .build import language


def free(count):
    return 0.0


def evenly(graph, stages):
    return cut(graph, [op.flop for op in graph.ops], stages, free)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=9), st.data())
def test_the_longest_stage_is_as_short_as_can_be(times, data):
    stages = data.draw(st.integers(2, len(times)))
    found = cut(matmul_graph(m=4, n=4, k=4, layers=len(times)), [float(t) for t in times], stages, free)
    ours = max(sum(t for t, s in zip(times, found.stage, strict=True) if s == k) for k in range(stages))
    best = min(
        max(sum(times[a:b]) for a, b in itertools.pairwise((0, *inner, len(times))))
        for inner in itertools.combinations(range(1, len(times)), stages - 1)
    )
    assert best <= ours <= 1.01 * best
    assert list(found.stage) == sorted(found.stage)
    assert set(found.stage) == set(range(stages))


@pytest.mark.parametrize("stages", [2, 4])
def test_a_model_is_cut_between_layers_where_one_tensor_crosses(stages):
    graph = language("training", layers=4, width=256)
    found = cut(graph, [op.flop if op.module.startswith("blocks") else 0.0 for op in graph.ops], stages, free)
    for k in range(stages):
        blocks = {op.module.split(".")[1] for op, s in zip(graph.ops, found.stage, strict=True)
                  if s == k and op.module.startswith("blocks.") and op.phase == "forward" and op.flop}  # fmt: skip
        assert blocks == {str(i) for i in range(k * 4 // stages, (k + 1) * 4 // stages)}
    assert [[graph.tensors[t].shape for t in sent] for sent in found.sent] == [[(4, 8, 16)]] * (stages - 1)


def test_backward_and_update_follow_their_forward():
    graph = language("training", layers=4)
    found = evenly(graph, 4)
    forward: dict[str, set[int]] = {}
    for op, stage in zip(graph.ops, found.stage, strict=True):
        if op.phase == "forward":
            forward.setdefault(op.module, set()).add(stage)
    for op, stage in zip(graph.ops, found.stage, strict=True):
        if op.module and op.phase != "forward":
            assert stage in forward[op.module], (op.name, op.module, op.phase)
    backward = [
        s for op, s in zip(graph.ops, found.stage, strict=True) if op.phase == "backward" and op.category == "matmul"
    ]
    assert backward == sorted(backward, reverse=True)


def test_stages_together_are_the_graph():
    graph = language("training")
    found = evenly(graph, 3)
    parts = [stage_graph(graph, [i for i, s in enumerate(found.stage) if s == k]) for k in range(3)]
    assert sum(p.flop for p in parts) == pytest.approx(graph.flop)
    assert sum(p.moved_bytes for p in parts) == pytest.approx(graph.moved_bytes)
    assert sum(p.parameters for p in parts) == graph.parameters
    held = lambda g, role: sum(s.bytes for s in g.storages if s.role == role)  # noqa: E731
    for role in ("gradient", "optimizer_state"):
        assert sum(held(p, role) for p in parts) == held(graph, role)


def test_what_a_link_costs_moves_the_cut():
    graph = language(layers=2, width=512)
    dear = cut(graph, [op.flop for op in graph.ops], 2, lambda count: count * 1e6)
    narrow = min(sum(graph.tensors[t].bytes for t in sent) for sent in dear.sent)
    assert narrow == 4 * 4 * 8 * 16
    assert len(dear.sent[0]) == 1


def test_a_parameter_that_two_stages_use_is_told():
    import torch

    from gnomon.workload.capture import capture

    from .build import Language

    tied = Language(layers=2)
    tied.head.weight = tied.embedding.weight
    graph = capture(tied, torch.zeros(2, 8, dtype=torch.long), name="tied", mode="training")
    shared = evenly(graph, 2).shared
    assert [graph.tensors[t].shape for t in shared] == [(32, 16)]


def test_more_stages_than_operators_are_refused():
    with pytest.raises(UsageError, match="4 pipeline stages need as many operators; made has 3"):
        evenly(matmul_graph(layers=3), 4)
