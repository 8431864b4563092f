import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.core.errors import DamagedData, ManifestError, NotRunnable
from gnomon.spec.task import Model, Tensor, Training
from gnomon.workload import program
from tests.workload.tasks import FAMILIES, family, linear, task


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "T5", "ResNet"])
def test_predict_gives_tensors_without_gradients_and_repeats_itself(name):
    built = program.build(family(name))
    first, second = built.step(), built.predict(built.inputs)
    assert first
    assert all(isinstance(x, torch.Tensor) and not x.requires_grad for x in first)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_same_seeds_give_the_same_model_and_inputs_and_others_do_not():
    a, b = program.build(family("BERT")), program.build(family("BERT"))
    assert all(torch.equal(x, y) for x, y in zip(a.step(), b.step(), strict=True))
    assert not torch.equal(a.inputs["input_ids"], program.build(family("BERT", seed=1)).inputs["input_ids"])
    one = family("BERT")
    other = dataclasses.replace(one, model=dataclasses.replace(one.model, seed=1))
    assert torch.equal(a.inputs["input_ids"], program.build(other).inputs["input_ids"])
    assert not torch.equal(a.step()[0], program.build(other).step()[0])


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_a_training_step_lowers_the_loss_and_leaves_no_gradients(optimizer):
    one = linear("training", training=Training(optimizer=optimizer, learning_rate=0.01))
    built = program.build(one)
    before = [p.clone() for p in built.model.parameters()]
    losses = [float(built.step()[0]) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert all(p.grad is None for p in built.model.parameters())
    assert not any(torch.equal(p, q) for p, q in zip(built.model.parameters(), before, strict=True))


def test_one_step_of_sgd_is_the_rule_of_the_textbook():
    built = program.build(linear("training", training=Training("sgd", learning_rate=0.5, loss="sum")))
    weight, x = built.model.weight.detach().clone(), built.inputs["input"]
    built.step()
    expected = weight - 0.5 * x.sum(0).expand(4, 8)
    torch.testing.assert_close(built.model.weight.detach(), expected)


def test_predict_of_a_model_in_training_evaluates_and_puts_the_mode_back():
    model = Model("d", "1", "python", "torch.nn:Linear", {"in_features": 8, "out_features": 4}, linear().model.inputs)
    built = program.build(task(model, "training"))
    assert built.model.training
    assert not built.predict(built.inputs)[0].requires_grad
    assert built.model.training


def test_parameters_and_floating_inputs_take_the_dtype_of_the_task_and_integers_stay():
    built = program.build(family("GPT-2", dtype="bfloat16"))
    assert {p.dtype for p in built.model.parameters()} == {torch.bfloat16}
    assert built.inputs["input_ids"].dtype == torch.int64
    assert program.build(linear(dtype="float64")).inputs["input"].dtype == torch.float64
    with pytest.raises(ManifestError, match="dtype is 'int8'"):
        program.build(linear(dtype="int8"))


def test_a_device_that_is_not_here_is_said_to_be_missing():
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(NotRunnable, match="torch sees no CUDA device here"):
        program.build(linear(), device="cuda")


def test_inputs_are_given_by_name_or_in_order():
    class Pair(nn.Module):
        def forward(self, a, b):
            return a - b

    def run(*names):
        batch = {name: torch.tensor(float(i)) for i, name in enumerate(names)}
        return float(program.caller(Pair(), batch, "here")(batch))

    assert run("b", "a") == 1
    assert run("left", "right") == -1
    with pytest.raises(ManifestError, match=r"Pair.forward\(a, b\) cannot take the inputs a, wrong"):
        run("a", "wrong")


def test_outputs_are_flattened_in_order_whatever_holds_them():
    a, b, c = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    assert program.flatten({"x": a, "y": (b, [c, None])}) == (a, b, c)
    assert program.flatten(a) == (a,)
    with pytest.raises(ManifestError, match="returned NoneType, in which there is no tensor"):
        program.flatten(None)


def test_a_loss_without_gradient_is_refused():
    def constant(outputs, inputs):
        return torch.tensor(1.0)

    model = nn.Linear(2, 2)
    step = program.TrainingStep(
        model, lambda batch: model(batch["x"]), {"x": torch.randn(1, 2)}, torch.optim.SGD(model.parameters()), constant
    )
    with pytest.raises(ManifestError, match="must be one number that depends on the parameters"):
        step()
    with pytest.raises(ManifestError, match="wanted 'mean', 'sum' or 'module:callable'"):
        program.build(linear("training", training=Training(loss="median")))


def test_fake_programs_have_the_shapes_of_real_ones():
    target, arguments, inputs = FAMILIES["GPT-2"]
    one = task(Model("gpt2", "1", "huggingface", target, arguments, inputs))
    real = program.build(one)
    fake, mode = program.build_fake(one)
    with mode, torch.no_grad():
        shapes = [x.shape for x in program.flatten(fake.model(**fake.inputs))]
    assert shapes == [x.shape for x in real.step()]
    pairs = zip(real.model.named_parameters(), fake.model.named_parameters(), strict=True)
    assert all((a, x.shape, x.dtype) == (b, y.shape, y.dtype) for (a, x), (b, y) in pairs)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    import onnx
    from onnx import TensorProto, helper

    path = tmp_path_factory.mktemp("onnx") / "affine.onnx"
    weight = helper.make_tensor("w", TensorProto.FLOAT, (8, 4), np.arange(32, dtype=np.float32))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["y"])],
        "affine",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["B", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 4])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def onnx_task(path, name="input", mode="inference"):
    return task(
        Model("affine", "1", "onnx", path.name, {}, (Tensor(name, "float32", ("B", 8)),)), mode, folder=str(path.parent)
    )


def test_an_onnx_model_runs_and_has_no_module(onnx_file):
    built = program.build(onnx_task(onnx_file))
    assert built.model is None
    weight = torch.arange(32.0).reshape(8, 4)
    torch.testing.assert_close(built.step()[0], built.inputs["input"] @ weight)


def test_an_onnx_model_that_does_not_fit_is_refused(onnx_file, tmp_path):
    with pytest.raises(ManifestError, match=r"model.inputs are x; affine.onnx takes input \(tensor\(float\)\)"):
        program.build(onnx_task(onnx_file, "x"))
    with pytest.raises(ManifestError, match="an ONNX model can only be run"):
        program.build(onnx_task(onnx_file, mode="training"))
    with pytest.raises(ManifestError, match="there is no file"):
        program.build(onnx_task(tmp_path / "missing.onnx"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx_file.read_bytes()[:20])
    with pytest.raises(DamagedData, match="no model that ONNX Runtime can load"):
        program.build(onnx_task(broken))
