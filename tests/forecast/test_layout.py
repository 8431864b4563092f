import torch
from torch import nn

from gnomon.forecast.layout import strided_bytes
from gnomon.workload.capture import capture


def strided(function, *inputs):
    """Bytes read out of order by operator, those that read none left out."""
    graph = capture(function, inputs, name="made")
    names = [op.name.split(".")[1] for op in graph.ops]
    return {name: size for name, size in zip(names, strided_bytes(graph), strict=True) if size}


X = torch.zeros(4, 6, 8)
SIZE = 4.0 * X.numel()


def test_a_normalization_and_a_copy_read_a_transposed_input_out_of_order():
    norm = nn.LayerNorm(6)
    assert strided(lambda x: norm(x.transpose(1, 2)), X) == {"native_layer_norm": SIZE}
    assert strided(lambda x: x.transpose(1, 2).contiguous(), X) == {"clone": SIZE}


def test_two_exchanges_undo_each_other_and_axes_of_size_one_are_nowhere():
    assert strided(lambda x: x.transpose(1, 2).transpose(1, 2).softmax(-1), X) == {}
    assert strided(lambda x: x.transpose(0, 1).softmax(-1), torch.zeros(1, 6)) == {}


def test_rows_that_stay_whole_are_in_order():
    heads = torch.zeros(2, 5, 3, 8)
    assert strided(lambda x: x.transpose(1, 2).contiguous(), heads) == {}
    assert strided(lambda x: x.permute(0, 3, 1, 2).contiguous(), heads) == {"clone": 4.0 * heads.numel()}


def test_elementwise_work_follows_its_input_and_pays_where_two_orders_meet():
    assert strided(lambda x: torch.relu(x.transpose(1, 2)) * 2.0, X) == {}
    assert strided(lambda x, y: y.transpose(1, 2) + x, X.transpose(1, 2).contiguous(), X) == {"add": SIZE}


def test_the_order_survives_views_and_elementwise_work_and_ends_with_a_product():
    square = torch.zeros(6, 6)
    assert strided(lambda x: torch.relu(x.t().unsqueeze(0)).softmax(-1), square) == {"_softmax": 144.0}
    assert strided(lambda x: torch.mm(x.t(), x).softmax(-1), square) == {}
