import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gnomon.forecast.fusion import FUSED, Space, _Fusion, _joined, fuse
from gnomon.forecast.predict import forecast
from gnomon.spec.resolve import resolve
from gnomon.workload.capture import capture, capture_task
from gnomon.workload.graph import Op, OpGraph, Storage, TensorInfo
from gnomon.workload.memory import lifetimes, peak

from .build import device

ROWS, COLUMNS = 8, 16
FULL, COLUMN = (ROWS, COLUMNS), (ROWS, 1)
CATEGORIES = {
    "sum": "reduction", "softmax": "softmax", "mm": "matmul", "dropout": "random", "item": "copy", "view": "view",
}  # fmt: skip


@st.composite
def graphs(draw) -> OpGraph:
    """Random programs over matrices and columns: pointwise, reductions, products, in-place, random, breaks, views."""
    tensors = [TensorInfo(FULL, "float32", 0, "input"), TensorInfo(COLUMN, "float32", 1, "input")]
    ops = []
    for _ in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(["add", "add", "gelu", "sum", "softmax", "mm", "relu_", "dropout", "item", "view"]))
        full = [t for t, info in enumerate(tensors) if info.shape == FULL]
        a, b = draw(st.sampled_from(full)), draw(st.sampled_from(range(len(tensors))))
        taken = (a, b) if kind in ("add", "mm") and a != b else (a,)
        shape = COLUMN if kind == "sum" else FULL
        storage = tensors[a].storage if kind in ("relu_", "view") else 1 + max(t.storage for t in tensors)
        made = [] if kind == "item" else [len(tensors)]
        if made:
            tensors.append(
                TensorInfo(shape, "float32", storage, tensors[a].role if kind in ("relu_", "view") else "activation")
            )
        category = CATEGORIES.get(kind, "elementwise")
        name = {"item": "_local_scalar_dense"}.get(kind, kind)
        attributes = {"dim": -1} if kind == "softmax" else {}
        read = float(sum(tensors[t].bytes for t in taken)) if kind != "view" else 0.0
        written = float(sum(tensors[t].bytes for t in made)) if kind != "view" else 0.0
        flop = 0 if kind == "view" else draw(st.integers(0, 100))
        ops.append(
            Op(
                f"aten.{name}.default",
                "",
                "",
                "forward",
                category,
                taken,
                tuple(made),
                float(flop),
                read,
                written,
                attributes,
            )
        )
    graph = OpGraph("drawn", "inference", tuple(ops), tuple(tensors), 0)
    if draw(st.booleans()):
        return graph
    blocks = [replace(b, freed=b.freed if b.born >= 0 and draw(st.booleans()) else None) for b in lifetimes(graph)]
    return replace(graph, storages=tuple(blocks))


def results(graph: OpGraph) -> int:
    """Bytes that the step makes and that outlive it."""
    return sum(b.bytes for b in graph.storages or lifetimes(graph) if b.born >= 0 and b.freed is None)


@given(graphs())
def test_flop_and_results_stay_and_neither_traffic_nor_memory_grows(graph):
    fused = fuse(graph)
    assert fused.flop == graph.flop
    assert fused.moved_bytes <= graph.moved_bytes
    assert peak(fused).peak_bytes <= peak(graph).peak_bytes
    assert results(fused) == results(graph)
    assert len(fused.ops) <= sum(op.category != "view" for op in graph.ops)


@given(graphs())
def test_a_graph_that_was_fused_comes_back_as_it_is(graph):
    once = fuse(graph)
    assert fuse(once) == once


@given(graphs())
def test_views_vanish_and_no_product_is_touched(graph):
    fused = fuse(graph)
    assert not any(op.category == "view" for op in fused.ops)

    def products(g):
        return [(op.name, op.flop, op.moved_bytes, g.shapes(op.inputs)) for op in g.ops if op.category == "matmul"]

    assert sorted(products(fused)) == sorted(products(graph))


@given(graphs())
def test_what_is_read_was_made_before(graph):
    """The order is topological: memory that the step makes is written by an operator before another one reads it."""
    fused = fuse(graph)
    made = {
        t.storage
        for t, b in zip(fused.tensors, map(lambda t: fused.storages[t.storage], fused.tensors), strict=True)
        if b.born < 0
    }
    for op in fused.ops:
        read = {fused.tensors[t].storage for t in op.inputs}
        assert read <= made | {fused.tensors[t].storage for t in op.outputs}
        made |= {fused.tensors[t].storage for t in op.outputs}


@given(graphs())
def test_the_last_value_of_memory_that_is_written_in_place_is_the_same(graph):
    """Running both graphs as term rewriting gives the same terms: no reader sees a value too early or too late."""

    def terms(g, expand):
        value = {}
        seen = []
        for op in g.ops:
            for member in expand(op):
                taken = tuple(value.get(s, s) for s in member.reads)
                for s in member.writes:
                    value[s] = hash((member.name, s, taken))
                if member.name == "mm":
                    seen.append(value[member.writes[0]])
        return sorted(seen)

    class Plain:
        def __init__(self, op):
            self.name = op.name.split(".")[1]
            self.reads = [graph.tensors[t].storage for t in op.inputs]
            self.writes = [graph.tensors[t].storage for t in op.outputs]

    order = _Fusion(graph)
    order.run()
    fused = replace(graph, ops=tuple(graph.ops[i] for group in order.order() for i in group.members))
    unfused = replace(graph, ops=tuple(op for op in graph.ops if op.category != "view"))
    assert terms(fused, lambda op: [Plain(op)]) == terms(unfused, lambda op: [Plain(op)])


def chain(*names, shape=(64, 64)):
    """Operators in a row, each on the result of the one before; the first reads an input."""
    tensors = [TensorInfo(shape, "float32", i, "input" if i == 0 else "activation") for i in range(len(names) + 1)]
    size = float(tensors[0].bytes)
    category = {"mm": "matmul", "softmax": "softmax", "_local_scalar_dense": "copy"}
    ops = [
        Op(f"aten.{n}.default", "", "", "forward", category.get(n, "elementwise"), (i,), (i + 1,), 1.0, size, size)
        for i, n in enumerate(names)
    ]
    blocks = [Storage(t.bytes, t.role, i - 1, i + 1 if 0 < i < len(names) else None) for i, t in enumerate(tensors)]
    return OpGraph("chain", "inference", tuple(ops), tuple(tensors), 0, tuple(blocks))


def names(graph):
    return [op.name for op in fuse(graph).ops]


def test_a_chain_reads_its_input_and_writes_its_result_once():
    fused = fuse(chain("add", "gelu", "mul"))
    assert [op.name for op in fused.ops] == ["fused[add+gelu+mul]"]
    assert (fused.ops[0].read_bytes, fused.ops[0].written_bytes, fused.ops[0].flop) == (64 * 64 * 4, 64 * 64 * 4, 3.0)
    assert len(fused.tensors) == 2


def test_a_reduction_takes_what_comes_before_and_after_it_and_gives_its_category():
    fused = fuse(chain("mul", "softmax", "add")).ops
    assert [(op.name, op.category) for op in fused] == [("fused[mul+softmax+add]", "softmax")]


def test_nothing_is_fused_through_a_product_or_a_graph_break():
    assert names(chain("add", "gelu", "mm", "add")) == ["fused[add+gelu]", "aten.mm.default", "aten.add.default"]
    assert len(names(chain("add", "_local_scalar_dense", "add"))) == 3


def test_a_kernel_has_at_most_64_operators():
    assert len(names(chain(*["add"] * 65))) == 2


@given(st.integers(1, 64), st.integers(2, 64))
def test_loops_join_when_they_run_over_the_same_elements(rows, length):
    reduction = Space(rows, length)
    assert _joined(Space(rows * length, 1), reduction) == reduction  # before it, or after a softmax
    assert _joined(reduction, Space(rows, 1)) == reduction  # on its results
    assert _joined(reduction, Space(rows, length + 1)) is None


class Branches(nn.Module):
    def forward(self, x, y):
        return torch.relu(x) + torch.sin(x) * y, torch.cos(x)


def test_pointwise_operators_on_one_input_go_side_by_side():
    graph = capture(Branches(), [torch.randn(32, 32), torch.randn(32, 1)], name="branches")
    assert len(fuse(graph).ops) == 1


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(32, 32)

    def forward(self, x):
        first = torch.relu(x)
        return first + self.inner(first)


def test_a_residual_that_a_product_lies_on_makes_no_cycle():
    fused = fuse(capture(Residual(), torch.randn(4, 32), name="residual"))
    assert [op.name.split(".")[1] if not op.name.startswith(FUSED) else op.name for op in fused.ops] == [
        "relu", "addmm", "add",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sizes", "mode"),
    [
        ("gcn-node-classification", {"V": 64, "E": 256}, "inference"),
        ("gcn-node-classification", {"V": 64, "E": 256}, "training"),
        ("sentence-embedding", {"L": 16}, "inference"),
        ("sentence-embedding", {"L": 16}, "training"),
        ("gpt2-generation-step", {"P": 8}, "inference"),
    ],
)
def test_shipped_tasks_keep_the_laws_and_get_faster(name, sizes, mode):
    graph = capture_task(resolve(name, dims=sizes, mode=mode))
    fused = fuse(graph)
    assert math.isclose(fused.flop, graph.flop)
    assert fused.moved_bytes < graph.moved_bytes
    assert peak(fused).peak_bytes <= peak(graph).peak_bytes
    eager, compiled = forecast(graph, device()), forecast(fused, device(), host="compiled")
    assert compiled.total.value_s < eager.total.value_s
    assert any(op.name.startswith(FUSED) for op in fused.ops)
