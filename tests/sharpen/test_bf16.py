import pytest
import torch
from torch import nn

from gnomon.sharpen.passes.bf16 import recipe
from gnomon.spec.task import Training
from tests.sharpen.tiny import program, task

UNIT = 2.0**-9  # half the gap between 1 and the next bfloat16: seven stored bits


def test_a_linear_layer_errs_by_no_more_than_the_rounding_of_its_operands_and_its_result(tmp_path):
    layer = nn.Linear(48, 24)
    given = program(layer, width=48)
    x = given.inputs["input"].double()
    exact = x @ layer.weight.detach().double().T + layer.bias.detach().double()
    size = x.abs() @ layer.weight.detach().double().abs().T + layer.bias.detach().double().abs()
    got = recipe.prepare(given, {}, tmp_path).step()[0]
    assert got.dtype == torch.float32
    assert ((got.double() - exact).abs() <= 4 * UNIT * size).all()
    assert not torch.equal(got, exact.float())


def test_inference_casts_each_weight_once_and_leaves_a_tied_embedding_in_float32(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(16, 16), nn.Linear(16, 16)
            self.head.weight = self.embedding.weight

        def forward(self, input):
            return self.head(input)

    given = recipe.prepare(program(Tied()), {}, tmp_path)
    assert given.model.head.weight.dtype == torch.bfloat16
    assert given.model.embedding.weight.dtype == torch.float32
    assert given.step()[0].dtype == torch.float32


def test_training_keeps_float32_weights_and_gradients_near_the_exact_ones(tmp_path):
    torch.manual_seed(3)
    plain = program(mode="training", training=Training())
    torch.manual_seed(3)
    cast = recipe.prepare(program(mode="training", training=Training()), {}, tmp_path)
    gradients = []
    for one in (plain, cast):
        one.step.forward().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in one.model.parameters()]))
        assert all(p.dtype == torch.float32 == p.grad.dtype for p in one.model.parameters())
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999
    assert not torch.equal(*gradients)
    before = cast.model.up.weight.detach().clone()
    cast.step()
    assert not torch.equal(before, cast.model.up.weight)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_a_task_in_another_dtype_is_refused_by_its_name(dtype):
    assert recipe.why_not(task(dtype=dtype), None) == f"autocast starts from float32; the task runs in {dtype}"
    assert recipe.why_not(task(), None) is None
