import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gnomon.core.errors import UsageError
from gnomon.sharpen.passes.compile import recipe, why_no_compiler
from gnomon.sharpen.recipe import prepare
from gnomon.spec.task import Training
from tests.sharpen.tiny import program, task


def headers(folder):
    (folder / "Python.h").touch()
    return folder


def test_a_missing_compiler_is_named_with_what_was_looked_for(tmp_path):
    assert "no-such-cxx is not on the PATH" in why_no_compiler("no-such-cxx", headers(tmp_path))


def test_missing_headers_are_named_with_their_folder(tmp_path):
    reason = why_no_compiler(sys.executable, tmp_path)  # anything that can be started
    assert "Python.h" in reason
    assert str(tmp_path) in reason
    assert why_no_compiler(sys.executable, headers(tmp_path)) is None


def test_an_onnx_task_has_nothing_to_compile():
    onnx = replace(task().model, source="onnx", target="model.onnx")
    assert "ONNX Runtime" in recipe.why_not(task(model=onnx), None)


def test_an_unknown_mode_is_refused_before_anything_is_compiled(tmp_path):
    with pytest.raises(UsageError, match="mode of recipe 'compile' is 'fastest'; known: default"):
        recipe.prepare(program(), {"mode": "fastest", "fullgraph": False}, tmp_path)


@pytest.mark.compile
@pytest.mark.parametrize("name", ["compile", "int8-dynamic+compile", "bf16+compile"])
def test_the_compiled_program_computes_the_same(name, tmp_path):
    torch._dynamo.reset()
    torch.manual_seed(5)
    eager = prepare(program(), {"recipe": name.replace("+compile", ""), "artifacts": str(tmp_path)} | (
        {"engine": "int_mm"} if name.startswith("int8") else {})) if "+" in name else program()  # fmt: skip
    torch.manual_seed(5)
    compiled = prepare(program(), {"recipe": name, "artifacts": str(tmp_path)})
    expected, got = eager.step()[0], compiled.step()[0]
    assert compiled.model._compiled_call_impl is not None
    # a value on the edge between two int8 (or bfloat16) steps may fall to the other side
    tolerance = 1e-5 if name == "compile" else 0.02
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.compile
def test_a_training_step_is_compiled_with_its_gradients(tmp_path):
    torch._dynamo.reset()
    torch.manual_seed(5)
    plain = program(mode="training", training=Training())
    torch.manual_seed(5)
    compiled = recipe.prepare(program(mode="training", training=Training()), dict(recipe.options), tmp_path)
    for _ in range(3):
        torch.testing.assert_close(compiled.step(), plain.step(), rtol=1e-5, atol=1e-6)


@pytest.mark.compile
def test_a_second_process_finds_the_kernels_of_the_first(tmp_path):
    code = (
        "from pathlib import Path; import torch; from tests.sharpen.tiny import program;"
        "from gnomon.sharpen.passes.compile import recipe;"
        "recipe.prepare(program(), dict(recipe.options), Path('unused')).step();"
        "from torch._dynamo.utils import counters; print(counters['inductor']['fxgraph_cache_hit'],"
        "counters['aot_autograd']['autograd_cache_hit'])"
    )
    root = Path(__file__).parents[2]
    environment = {
        "PATH": "/usr/bin:/bin",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": f"{root}/src:{root}",
    }
    runs = [subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
            for _ in range(2)]  # fmt: skip
    first, second = ([int(n) for n in run.stdout.split()[-2:]] for run in runs)
    assert sum(first) == 0
    assert sum(second) >= 1
