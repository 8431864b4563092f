from dataclasses import replace

import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from gnomon.core.errors import CheckFailed, NotRunnable, UsageError
from gnomon.sharpen.passes import onnx_export, onnx_fp32, onnx_int8
from gnomon.sharpen.recipe import effective_options, prepare
from gnomon.spec.task import Training
from tests.sharpen.tiny import Mlp, program, task


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return Mlp(64)


def by(name, model, artifacts, **options):
    return prepare(program(model, width=64), {"recipe": name, "artifacts": str(artifacts), **options})


def test_float32_gives_the_same_outputs_without_torch(model, artifacts):
    before, after = program(model, width=64), by("onnx-fp32", model, artifacts)
    assert after.model is None
    x = {"input": torch.randn(4, 64)}
    torch.testing.assert_close(after.predict(x), before.predict(x), rtol=1e-5, atol=1e-6)
    assert after.step()[0].shape == (4, 8)


def test_int8_keeps_the_direction_and_rounds(model, artifacts):
    before, after = program(model, width=64), by("onnx-int8", model, artifacts)
    x = {"input": torch.randn(4, 64)}
    a, b = before.predict(x)[0], after.predict(x)[0]
    assert torch.nn.functional.cosine_similarity(a, b).min() > 0.99
    assert not torch.equal(a, b)


def test_one_scale_per_channel_is_nearer_than_one_per_tensor_where_channels_differ(artifacts):
    skewed = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        skewed.weight *= torch.logspace(-3, 0, 64)[:, None]
    own = {"digest": "sha256:skewed"}
    x = torch.randn(4, 64)
    exact = skewed(x).detach()
    error = {}
    for per_channel in (True, False):
        options = effective_options(onnx_int8.recipe, {"per_channel": per_channel})
        after = onnx_int8.recipe.prepare(program(skewed, width=64, **own), options, artifacts)
        error[per_channel] = ((after.predict({"input": x})[0] - exact).abs() / exact.abs().mean(0)).mean()
    assert error[True] < 0.1 < error[False]


def test_a_mask_that_is_broadcast_over_queries_is_run_as_one_attention_operator(tmp_path):
    import onnx

    class Attends(nn.Module):
        def forward(self, input):
            x = input[:, None, :, None] * torch.linspace(-1, 1, 4)
            mask = (input > 0)[:, None, None, :]
            return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask).flatten(1)

    given = program(Attends())
    given.inputs["input"][:, 0] = 1  # no row may be masked as a whole
    expected = given.step()[0]
    torch.testing.assert_close(prepare(given, {"recipe": "onnx-fp32", "artifacts": str(tmp_path)}).step()[0], expected)
    (path,) = tmp_path.glob("*/model.onnx")
    assert "Attention" in {node.op_type for node in onnx.load(path).graph.node}


def test_what_was_exported_once_is_loaded_and_not_exported_again(model, artifacts):
    by("onnx-fp32", model, artifacts)

    class Forbidden(Mlp):
        def forward(self, input):
            raise AssertionError("exported again")

    again = by("onnx-fp32", Forbidden(64), artifacts)  # the same task, so the same file
    assert again.step()[0].shape == (4, 8)


def test_another_task_has_another_file(model, artifacts):
    one = onnx_export.exported(program(model, width=64), artifacts)
    assert one == onnx_export.exported(program(model, width=64), artifacts)
    assert one != onnx_export.exported(program(model, width=64, digest="sha256:other"), artifacts)
    assert not [left for left in artifacts.iterdir() if left.name.startswith("making-")]


def test_a_damaged_file_is_told_and_made_again_the_next_time(model, tmp_path):
    path = onnx_export.exported(program(model, width=64), tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckFailed, match=r"cannot load .* made again"):
        by("onnx-fp32", model, tmp_path)
    assert by("onnx-fp32", model, tmp_path).step()[0].shape == (4, 8)


def test_control_flow_that_depends_on_values_is_named_as_the_reason(tmp_path):
    class Branches(nn.Module):
        def forward(self, input):
            return input if input.sum() > 0 else -input

    with pytest.raises(NotRunnable, match=r"torch\.export cannot follow the model"):
        onnx_fp32.recipe.prepare(program(Branches()), {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_export_that_computes_something_else_is_not_kept(tmp_path):
    class Random(nn.Module):
        def forward(self, input):
            return input + torch.rand_like(input)

    with pytest.raises(CheckFailed, match=r"no ONNX file of tiny could be made.*differs by"):
        onnx_fp32.recipe.prepare(program(Random()), {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_without_constant_matrix_products_has_nothing_to_quantise(tmp_path):
    with pytest.raises(NotRunnable, match="no MatMul or Gemm with constant weights"):
        onnx_int8.recipe.prepare(program(nn.GELU()), onnx_int8.recipe.options, tmp_path)


def test_an_unknown_weight_type_is_named(tmp_path):
    options = effective_options(onnx_int8.recipe, {"weight_type": "QInt4"})
    with pytest.raises(UsageError, match="weight_type of recipe 'onnx-int8' is 'QInt4'; known: QInt8, QUInt8"):
        onnx_int8.recipe.prepare(program(), options, tmp_path)


@pytest.mark.parametrize("recipe", [onnx_fp32.recipe, onnx_int8.recipe])
def test_they_say_why_they_do_not_apply(recipe):
    assert recipe.why_not(task(), None) is None
    assert "cannot be trained" in recipe.why_not(task(mode="training", training=Training()), None)
    assert "on the CPU" in recipe.why_not(task(device="cuda:0"), None)
    assert "exports float32" in recipe.why_not(task(dtype="bfloat16"), None)
    onnx = replace(task().model, source="onnx", target="model.onnx")
    assert "already run by ONNX Runtime" in recipe.why_not(task(model=onnx), None)


def test_a_missing_package_comes_with_how_to_get_it():
    reason = onnx_export.why_not(task(), None, ("onnx", "no_such_runtime"))
    assert reason == "no_such_runtime not installed; pip install 'gnomon[onnx]'"


def test_nothing_of_torch_can_follow_in_a_combination(model, artifacts):
    with pytest.raises(NotRunnable, match="bf16 cannot follow what comes before it: the model is run by ONNX Runtime"):
        by("onnx-fp32+bf16", model, artifacts)
