import dataclasses
import sys
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import ManifestError
from gnomon.spec.task import Dataset, Model, Tensor
from gnomon.workload.inputs import example_inputs
from tests.workload.tasks import task


def drawn(*tensors, floating=torch.float32, **changes):
    return example_inputs(task(Model("m", "1", "python", "x:y", {}, tensors), **changes), floating)


@given(low=st.integers(-50, 50), width=st.integers(1, 40), seed=st.integers(0, 2**63 - 1))
def test_integers_lie_in_the_half_open_range(low, width, seed):
    x = drawn(Tensor("x", "int32", (40,), "integers", low, low + width), seed=seed)["x"]
    assert x.dtype == torch.int32
    assert low <= int(x.min()) <= int(x.max()) < low + width


def test_names_take_the_sizes_of_the_task_and_fills_do_what_they_say():
    batch = drawn(
        Tensor("a", "float32", ("B", "L", 3)),
        Tensor("b", "float64", ("L",), "uniform", 2, 3),
        Tensor("c", "bool", (4,), "ones"),
        Tensor("d", "int8", (4,), "zeros"),
        dims={"B": 2, "L": 500},
    )
    assert batch["a"].shape == (2, 500, 3)
    assert abs(float(batch["a"].mean())) < 5 / 3000**0.5
    assert batch["b"].dtype == torch.float32
    assert 2 <= float(batch["b"].min()) <= float(batch["b"].max()) <= 3
    assert batch["c"].all()
    assert not batch["d"].any()


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ManifestError, match=r"input 'x' has a dim 'l' without a size.* dims: B, L"):
        drawn(Tensor("x", "float32", ("B", "l")))
    with pytest.raises(ManifestError, match="input 'x' is int64 and cannot be drawn with fill 'normal'"):
        drawn(Tensor("x", "int64", (3,)))
    with pytest.raises(ManifestError, match=r"integers from \[0, 0\), which is empty"):
        drawn(Tensor("x", "int64", (3,), "integers", 0, 0))


@pytest.fixture
def from_dataset(tmp_path):
    """Inputs through a data set whose `examples` has this body."""
    name = f"dataset_{tmp_path.name}"

    def build(body, *tensors):
        (tmp_path / f"{name}.py").write_text(
            "import torch\ndef examples(dims, seed):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        )
        sys.modules.pop(name, None)
        one = task(Model("m", "1", "python", "x:y", {}, tensors), folder=str(tmp_path), trusted=True)
        return example_inputs(dataclasses.replace(one, dataset=Dataset("d", "1", f"{name}:examples")), torch.float32)

    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode  # a file rewritten in one second keeps its stamp
    yield build
    sys.dont_write_bytecode = before
    sys.modules.pop(name, None)


def test_a_dataset_gives_the_inputs_for_the_sizes_and_the_seed(from_dataset):
    x = Tensor("x", "float64", ("B", "L"))
    batch = from_dataset("return {'x': torch.full((dims['B'], dims['L']), seed + 0.5, dtype=torch.float64)}", x)
    assert torch.equal(batch["x"], torch.full((2, 16), 0.5))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "must return a dict of tensors; got int"),
        ("return {'y': torch.zeros(2, 16)}", r"gives 'y', which is no input of the model.*Inputs: x"),
        ("return {}", "gives no input 'x'"),
        ("return {'x': [1, 2]}", "input 'x' must be a tensor; got list"),
        ("return {'x': torch.zeros(2, 16, dtype=torch.int64)}", "'x' is declared float32; got torch.int64"),
        ("return {'x': torch.zeros(2)}", r"declared with 2 dims; got shape \(2,\)"),
        ("return {'x': torch.zeros(2, 17)}", "input 'x', dim 'L': the task says 16, the dataset gives 17"),
    ],
)
def test_a_dataset_that_gives_something_else_is_told_which_input_and_dim(from_dataset, body, message):
    with pytest.raises(ManifestError, match=message):
        from_dataset(body, Tensor("x", "float32", ("B", "L")))
