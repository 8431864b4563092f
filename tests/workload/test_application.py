from dataclasses import replace

import pytest
import torch

from gnomon.core.errors import CheckFailed, ManifestError, NotRunnable
from gnomon.spec import trust
from gnomon.spec.task import Output, Stage, Stages
from gnomon.workload.application import application, batches, check_outputs
from gnomon.workload.context import stage_call
from gnomon.workload.inputs import example_inputs
from gnomon.workload.program import build
from gnomon.workload.stages import Pipeline
from tests.workload.tasks import linear

DOUBLE = "def preprocess(context, batch, factor=2):\n    return {k: factor * v for k, v in batch.items()}\n"
ITEM = (
    "import torch\n"
    "def preprocess(context, batch):\n"
    "    noise = torch.rand((), generator=context.generator())\n"
    "    return {'input': batch['input'] * 0 + context.item + noise}\n"
)
DIGEST = "sha256:" + "3" * 64


def staged(preprocess=None, postprocess=None, task=None, **stage):
    task = task or linear(trusted=True)
    stages = Stages(
        Stage(code=preprocess, **stage) if preprocess else None,
        Stage(code=postprocess) if postprocess else None,
    )
    return replace(task, model=replace(task.model, stages=stages))


def test_the_stream_gives_what_the_stages_give_by_hand():
    task = staged(DOUBLE, "def postprocess(context, outputs):\n    return outputs[0].sum().item()\n")
    program = build(task)
    results = list(application(program).stream(batches(task, 3)))
    by_hand = []
    for seed in range(3):
        drawn = example_inputs(replace(linear(), seed=seed), torch.float32)["input"]
        by_hand.append(program.predict({"input": 2 * drawn})[0].sum().item())
    assert results == pytest.approx(by_hand)


def test_the_example_of_a_program_has_been_preprocessed():
    plain, doubled = build(linear()).inputs["input"], build(staged(DOUBLE, arguments={"factor": 3})).inputs["input"]
    torch.testing.assert_close(doubled, 3 * plain)


def test_a_stage_knows_its_item_and_draws_the_same_for_it_each_time():
    task = staged(ITEM)
    call = stage_call(task, "preprocess")
    batch = {"input": torch.zeros(2, 8)}
    first = [call(batch)["input"][0, 0].item() for _ in range(3)]
    again = stage_call(task, "preprocess")
    assert [again(batch)["input"][0, 0].item() for _ in range(3)] == first
    assert [int(x) for x in first] == [0, 1, 2]
    assert len({x - int(x) for x in first}) == 3


def test_a_task_without_stages_streams_its_batches():
    task = linear()
    program = build(task)
    results = list(application(program, queue=0).stream(batches(task, 2)))
    assert [r[0].shape for r in results] == [(2, 4), (2, 4)]
    torch.testing.assert_close(results[0][0], program.predict(program.inputs)[0])
    assert not torch.equal(results[0][0], results[1][0])


def test_training_steps_on_the_batches_of_the_stream():
    task = linear("training")
    program = build(task)
    before = program.model.weight.detach().clone()
    losses = [loss.item() for (loss,) in application(program).stream(batches(task, 4))]
    assert len(losses) == 4
    assert not torch.equal(before, program.model.weight)
    with pytest.raises(NotRunnable, match="cannot be given another batch"):
        application(replace(program, step=lambda: program.step()))


def test_batches_without_a_count_go_on():
    stream = batches(linear())
    seen = [next(stream)["input"][0, 0].item() for _ in range(5)]
    assert len(set(seen)) == 5


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def preprocess(context, batch):\n    return 3\n", r"preprocess\(context, batch\) must return a dict .*int"),
        ("def preprocess(context, batch):\n    return {}\n", "preprocess gives no input 'input'"),
        (
            "def preprocess(context, batch):\n    return {'input': batch['input'][:1]}\n",
            "input 'input', dim 'B': the task says 2",
        ),
        ("def preprocess(context, batch):\n    return {**batch, 'inputs': 1}\n", "'inputs', which is no input of the"),
    ],
)
def test_what_a_stage_gives_is_checked_like_what_a_dataset_gives(code, message):
    with pytest.raises(ManifestError, match=message):
        build(staged(code))
    fine = build(linear(trusted=True))
    pipeline = application(replace(fine, task=staged(code)))
    assert isinstance(pipeline, Pipeline)
    with pytest.raises(ManifestError, match="stage preprocess, item 0: .*" + message):
        list(pipeline.stream(batches(linear(), 1)))


def test_a_stage_of_an_installed_package_takes_its_arguments():
    stages = Stages(postprocess=Stage("gnomon.zoo.stages:top_k", arguments={"k": 3}))
    task = linear()
    task = replace(task, model=replace(task.model, stages=stages))
    (result,) = application(build(task)).stream(batches(task, 1))
    assert result["classes"].shape == (2, 3)
    assert bool((result["scores"].diff(dim=-1) <= 0).all())


def test_inline_code_that_nobody_trusts_is_not_run(tmp_path):
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n" + DOUBLE
    task = staged(code, task=linear())
    with pytest.raises(ManifestError, match="is not on the trust list; its code was not run"):
        build(task)
    task = replace(task, model=replace(task.model, inline=DIGEST))
    with pytest.raises(ManifestError, match=f"{DIGEST} is not on the trust list"):
        build(task)
    assert not (tmp_path / "ran").exists()
    trust.add(DIGEST, "it")
    build(task)
    assert (tmp_path / "ran").exists()


def test_code_without_the_function_is_named():
    with pytest.raises(ManifestError, match=r"wanted code that defines preprocess\(context, batch\)"):
        build(staged("preprocess = 3\n"))


def outputs(*declared):
    task = linear()
    return replace(task, model=replace(task.model, outputs=declared))


@pytest.mark.parametrize("shape", [("B", 4), (2, "C"), ("X", "Y")])
def test_outputs_as_declared_pass(shape):
    task = outputs(Output("y", "float32", shape))
    check_outputs(task, build(task).step())
    check_outputs(linear(), build(task).step())


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ((Output("y", "float16", ("B", 4)),), "'y' is declared float16, the model gives float32"),
        ((Output("y", "float32", ("B", 5)),), r"'y' is declared \[B, 5\]: axis 1: wanted 5, got 4"),
        ((Output("y", "float32", ("C", "C")),), r"axis 1: wanted C = 2, got 4"),
        ((Output("y", "float32", ("B",)),), "wanted 1 axes"),
        ((Output("y", "float32", ("B", 4)), Output("z", "int8", ())), "2 are declared, the model gives 1"),
    ],
)
def test_outputs_other_than_declared_are_told(declared, message):
    task = outputs(*declared)
    with pytest.raises(CheckFailed, match=message):
        check_outputs(task, build(task).step())


def test_pixels_are_scaled_by_channel():
    from gnomon.zoo.stages import scale_pixels

    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    scaled = scale_pixels(None, {"x": pixels}, mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])["x"]
    for c, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        torch.testing.assert_close(scaled[:, c], (pixels[:, c].float() / 255 - mean) / std)


def test_inputs_of_any_kind_may_be_preprocessed():
    code = "import torch\ndef preprocess(context, batch):\n    return {'input': torch.ones(2, 8) * len(batch)}\n"
    task = staged(code, task=linear(trusted=True))
    program = build(task)
    (outputs,) = application(program).stream([["three", "short", "texts"]])
    torch.testing.assert_close(outputs, program.predict({"input": torch.full((2, 8), 3.0)}))
