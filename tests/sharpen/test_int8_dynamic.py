import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gnomon.core.errors import UsageError
from gnomon.sharpen.int8 import here, quantize_rows
from gnomon.sharpen.passes.int8_dynamic import Int8Linear, PackedLinear, recipe
from gnomon.sharpen.recipe import effective_options, get
from gnomon.spec.task import Training
from tests.sharpen.tiny import Mlp, program, task

pytestmark = pytest.mark.skipif(here().why_not is not None, reason=str(here().why_not))


def integer_product(x, values, scale, bias):
    """The layer as loops over int64: rounded rows times rounded channels."""
    y = np.zeros((len(x), len(values)))
    for n, row in enumerate(x):
        step = np.float32(max(abs(float(v)) for v in row)) / np.float32(127)
        rounded = [int(np.rint(np.float32(v) / step)) if step > 0 else 0 for v in row]
        for o, channel in enumerate(values):
            total = sum(a * int(w) for a, w in zip(rounded, channel, strict=True))
            y[n, o] = total * float(step) * float(scale[o]) + float(bias[o])
    return y


@given(rows=st.integers(1, 5), width=st.integers(1, 12), outputs=st.integers(1, 6), seed=st.integers(0, 2**20))
def test_the_layer_is_the_integer_product_of_rounded_rows_and_channels(rows, width, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(outputs, width, generator=generator), torch.randn(outputs, generator=generator)
    x = torch.randn(rows, width, generator=generator) * 10 ** torch.randn(rows, 1, generator=generator)
    quantized = quantize_rows(weight, here().largest_weight)
    got = Int8Linear(quantized, bias)(x).double().numpy()
    expected = integer_product(x.numpy(), quantized.values.numpy(), quantized.scale.numpy(), bias.numpy())
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max() + 1e-12)


@pytest.mark.parametrize("reduce_range", [False, True])
@given(rows=st.integers(1, 9), width=st.integers(1, 40), seed=st.integers(0, 2**20))
def test_packed_kernels_err_by_no_more_than_half_a_step_of_the_activation(reduce_range, rows, width, seed):
    if here().saturates and not reduce_range:
        return
    generator = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(7, width, generator=generator), torch.randn(rows, width, generator=generator)
    values, scale = quantize_rows(weight)
    back = values.double() * scale.double()[:, None]
    got = PackedLinear(quantize_rows(weight), None, reduce_range)(x).double()
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / (127 if reduce_range else 255)
    # half a step from rounding the value, another half from rounding the zero point at the ends of the range
    bound = step * back.abs().sum(1)[None, :]
    assert ((got - x.double() @ back.T).abs() <= bound * 1.001 + 1e-5).all()


def test_a_row_with_large_values_does_not_coarsen_the_others_with_int_mm_and_does_when_packed():
    layer, x = nn.Linear(64, 32), torch.randn(8, 64)
    x[0] *= 1000
    quantized = quantize_rows(layer.weight, here().largest_weight)
    exact = layer(x)[1:]
    by_row = Int8Linear(quantized, layer.bias)(x)[1:]
    by_tensor = PackedLinear(quantize_rows(layer.weight), layer.bias, here().saturates)(x)[1:]
    assert (by_row - exact).norm() < 0.03 * exact.norm() < 0.5 * (by_tensor - exact).norm()


def test_leading_dimensions_and_a_missing_bias_are_kept():
    layer, x = nn.Linear(8, 6, bias=False), torch.randn(2, 3, 8)
    for made in (
        Int8Linear(quantize_rows(layer.weight, here().largest_weight), None),
        PackedLinear(quantize_rows(layer.weight), None, here().saturates),
    ):
        assert made(x).shape == (2, 3, 6)
        assert (made(x) - layer(x)).abs().max() < 0.1


@pytest.mark.parametrize(("rows", "width", "outputs"), [(1, 5, 3), (4, 1, 3), (4, 5, 1), (1, 1, 1)])
def test_sizes_of_one_with_odd_strides_are_multiplied_right(rows, width, outputs):
    """torch._int_mm itself gives garbage for a [1, 5] operand with strides (1, 1)."""
    values = torch.arange(-6, rows * width - 6).float().reshape(width, rows)
    x = torch.empty_strided((rows, width), (1, rows)).copy_(values.t())
    quantized = quantize_rows(torch.randn(outputs, width), here().largest_weight)
    got = Int8Linear(quantized, None)(x).double().numpy()
    expected = integer_product(x.numpy(), quantized.values.numpy(), quantized.scale.numpy(), np.zeros(outputs))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_row_of_zeros_gives_the_bias():
    layer = nn.Linear(8, 6)
    got = Int8Linear(quantize_rows(layer.weight, here().largest_weight), layer.bias)(torch.zeros(2, 8))
    torch.testing.assert_close(got, layer.bias.detach().expand(2, 6))


@pytest.mark.parametrize("engine", ["auto", "packed", "int_mm"])
def test_a_model_keeps_its_direction(engine, tmp_path):
    given = program(width=64)
    before = given.step()[0]
    after = recipe.prepare(given, {"engine": engine, "skip": []}, tmp_path).step()[0]
    assert torch.nn.functional.cosine_similarity(before, after).min() > 0.99
    assert not torch.equal(before, after)


def test_skipped_layers_stay_as_they_are(tmp_path):
    given = program()
    recipe.prepare(given, {"engine": "int_mm", "skip": ["down"]}, tmp_path)
    assert isinstance(given.model.up, Int8Linear)
    assert type(given.model.down) is nn.Linear


def test_the_queue_of_attention_projections_that_torch_reads_itself_is_left_alone(tmp_path):
    layer = nn.TransformerEncoderLayer(16, 2, batch_first=True)
    given = program(nn.Sequential(layer, nn.Linear(16, 16)))
    recipe.prepare(given, {"engine": "int_mm", "skip": []}, tmp_path)
    assert type(given.model[0].linear1) is nn.Linear
    assert isinstance(given.model[1], Int8Linear)


def test_an_unknown_engine_is_named(tmp_path):
    with pytest.raises(UsageError, match="engine of recipe 'int8-dynamic' is 'tpu'; known: auto, packed, int_mm"):
        recipe.prepare(program(), {"engine": "tpu", "skip": []}, tmp_path)


def test_beside_a_compiler_the_engine_that_fuses_is_taken():
    assert effective_options(get("int8-dynamic+compile"), {})["int8-dynamic.engine"] == "int_mm"
    assert effective_options(get("int8-dynamic+bf16"), {})["int8-dynamic.engine"] == "auto"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": "training", "training": Training()}, "no gradients"),
        ({"device": "cuda:0"}, "for CPUs"),
        ({"dtype": "bfloat16"}, "starts from float32"),
    ],
)
def test_it_says_why_it_does_not_apply(changes, reason):
    assert reason in recipe.why_not(task(**changes), None)
    assert recipe.why_not(task(), None) is None


def test_a_model_without_linear_layers_is_refused():
    assert recipe.why_not(task(), program(nn.ReLU())) == "the model has no linear layer"
    assert recipe.why_not(task(), program(Mlp())) is None
