import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from gnomon.workload import capture, cost
from gnomon.workload.cost import Call, Operand, normalize


def only(function, *inputs, name="one"):
    """The one operator that is no view."""
    (op,) = [op for op in capture.capture(function, inputs, name=name).ops if op.category != "view"]
    return op


def dense(*shape):
    size = 1
    for n in shape:
        size *= n
    return Operand(shape, 4 * size, 4)


@given(
    st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.integers(3, 6), st.integers(1, 2), st.booleans()
)  # fmt: skip
@settings(max_examples=20)
def test_convolution_flop_are_those_of_the_loops(batch, groups, per_group, side, stride, transposed):
    channels = groups * per_group
    x, w = torch.randn(batch, channels, side, side), torch.randn(channels, per_group, 2, 2)
    turns = 0
    if transposed:
        function = lambda x, w: F.conv_transpose2d(x, w, stride=stride, groups=groups)  # noqa: E731
        for _ in itertools.product(range(batch), range(channels), range(side), range(side)):
            turns += per_group * 4  # every input pixel is spread over its window in each output of its group
    else:
        function = lambda x, w: F.conv2d(x, w, stride=stride, groups=groups)  # noqa: E731
        outputs = (side - 2) // stride + 1
        for _ in itertools.product(range(batch), range(channels), range(outputs), range(outputs)):
            turns += per_group * 4
    assert only(function, x, w).flop == 2 * turns


def test_each_gradient_of_a_convolution_costs_one_forward():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 5, 3, bias=False))
    graph = capture.capture(model, torch.randn(2, 3, 8, 8), name="conv", mode="training")
    flop = {(op.module, op.phase): op.flop for op in graph.ops if op.category == "convolution"}
    assert flop["0", "backward"] == flop["0", "forward"]  # pixels take no gradient
    assert flop["1", "backward"] == 2 * flop["1", "forward"]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=10)
def test_attention_costs_two_products_and_a_softmax(batch, heads, queries, keys):
    size = 8
    q = torch.randn(batch, heads, queries, size)
    k = torch.randn(batch, heads, keys, size)
    op = only(F.scaled_dot_product_attention, q, k, k.clone())
    scores = batch * heads * queries * keys
    assert op.category == "attention"
    assert op.flop == 2 * scores * size + 2 * scores * size + normalize.SOFTMAX * scores


def test_the_gradient_of_attention_costs_five_products():
    call = Call(
        "aten._scaled_dot_product_flash_attention_for_cpu_backward",
        {name: dense(1, 2, 6, 4) for name in ("grad_out", "query", "key", "value", "out")},
        (dense(1, 2, 6, 4),) * 3,
    )
    scores = 2 * 6 * 6
    assert cost.cost(call).flop == scores * (5 * 2 * 4 + 2 + normalize.SOFTMAX_BACKWARD)


def test_a_broadcast_operand_is_read_once_at_its_real_size():
    op = only(lambda x, row: x + row.expand(6, 5), torch.randn(6, 5), torch.randn(5))
    assert (op.flop, op.read_bytes, op.written_bytes) == (30, 4 * 30 + 4 * 5, 120)
    of_many = only(lambda x, rows: x + rows[3].expand(6, 5), torch.randn(6, 5), torch.randn(100, 5))
    assert of_many.read_bytes == 4 * 30 + 4 * 5


def test_a_gather_reads_only_the_rows_that_it_takes():
    op = only(lambda ids, table: F.embedding(ids, table), torch.tensor([7, 8]), torch.randn(1000, 4))
    assert (op.flop, op.read_bytes, op.written_bytes) == (0, 2 * 8 + 2 * 16, 32)


def test_adding_rows_in_place_touches_only_them():
    rows, places = torch.randn(3, 4), torch.tensor([0, 2, 5])
    in_place = only(lambda t, i, r: t.index_add_(0, i, r), torch.randn(100, 4), places, rows)
    fresh = only(lambda t, i, r: t.index_add(0, i, r), torch.randn(100, 4), places, rows)
    assert in_place.flop == fresh.flop == 12
    assert in_place.moved_bytes == 3 * 8 + 3 * 48
    assert fresh.moved_bytes == 3 * 8 + 48 + 2 * 1600


def test_a_copy_moves_bytes_and_computes_nothing():
    op = only(lambda x: x.to(torch.float64), torch.randn(10))
    assert (op.category, op.flop, op.read_bytes, op.written_bytes) == ("copy", 0, 40, 80)


def test_filling_in_place_reads_nothing():
    op = only(lambda x: x.zero_(), torch.randn(10))
    assert (op.flop, op.read_bytes, op.written_bytes) == (0, 0, 40)


@pytest.mark.parametrize(
    ("function", "per_element"),
    [
        (lambda x: x.softmax(-1), normalize.SOFTMAX),
        (lambda x: x.log_softmax(-1), normalize.SOFTMAX),
        (lambda x: F.layer_norm(x, (8,)), normalize.STATISTICS + normalize.NORMALIZE),
        (lambda x: F.layer_norm(x, (8,), x[0], x[1]), normalize.STATISTICS + normalize.NORMALIZE + normalize.AFFINE),
        (F.gelu, 1),
        (torch.tanh, 1),
        (lambda x: x.sum(), 1),
        (lambda x: x.var(-1), normalize.STATISTICS),
        (lambda x: F.max_pool1d(x, 2), 1),
    ],
)
def test_constants_per_element_are_the_documented_ones(function, per_element):
    x = torch.randn(4, 8)
    flop = sum(op.flop for op in capture.capture(function, x, name="constants").ops)
    assert flop == per_element * x.numel()


def test_stored_statistics_make_batch_norm_cheaper_than_those_of_the_batch():
    model, x = nn.BatchNorm1d(4), torch.randn(8, 4)
    stored = capture.capture(model, x, name="bn").flop
    batch = capture.capture(model, x, name="bn", mode="training")
    own = sum(op.flop for op in batch.ops if op.phase == "forward" and op.category == "normalization")
    scaling = normalize.NORMALIZE + normalize.AFFINE
    assert (stored, own) == (32 * scaling, 32 * (normalize.STATISTICS + scaling))


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}])
def test_fused_and_foreach_updates_are_known_and_write_what_they_change(options):
    weights = [nn.Parameter(torch.randn(6, 5)) for _ in range(2)]

    def update(*gradients):
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        torch.optim.SGD(weights, lr=0.1, **options).step()
        return gradients[0]

    graph = capture.capture(update, [torch.ones(6, 5)] * 2, name="sgd")
    assert graph.unknown == {}
    assert max(op.written_bytes for op in graph.ops) >= 2 * 30 * 4


def test_grouped_products_divide_the_rows_among_the_groups():
    call = Call("aten._grouped_mm", {"self": dense(10, 4), "mat2": dense(3, 4, 6)}, (dense(10, 6),))
    assert cost.cost(call).flop == 2 * 10 * 4 * 6
    inner = Call("aten._grouped_mm", {"self": dense(4, 10), "mat2": dense(10, 6)}, (dense(3, 4, 6),))
    assert cost.cost(inner).flop == 2 * 4 * 10 * 6


def test_sorting_counts_comparisons():
    assert only(lambda x: x.sort(-1)[0], torch.randn(3, 8)).flop == 3 * 8 * 3


def test_an_operator_in_no_table_has_no_flop_and_its_operands_as_traffic():
    price = cost.cost(Call("aten.no_such_operator", {"self": dense(5)}, (dense(7),)))
    assert price == ("unknown", None, 20.0, 28.0)


def test_a_missing_operand_is_named():
    with pytest.raises(KeyError, match="no tensor argument weight; it has input"):
        cost.cost(Call("aten.convolution", {"input": dense(1, 1, 4)}, (dense(1, 1, 4),)))
