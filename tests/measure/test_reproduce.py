from dataclasses import replace

import numpy as np
import pytest
import torch

from gnomon.core.errors import CheckFailed
from gnomon.core.records import to_json
from gnomon.measure import reproduce
from gnomon.spec.task import Output
from tests.measure import tasks


def computed(task, folder=None, quality=False):
    try:
        return reproduce.outputs(
            {"task": to_json(task), "folder": None if folder is None else str(folder), "quality": quality}
        )
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_same_task_gives_the_same_bits_three_times_and_another_seed_others():
    task = tasks.bert(deterministic=True)
    digests = [[one["digest"] for one in computed(task)["outputs"]] for _ in range(3)]
    assert digests[0] == digests[1] == digests[2]
    assert [one["digest"] for one in computed(replace(task, seed=1))["outputs"]] != digests[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_values_are_kept_beside_their_description(tmp_path, dtype):
    task = tasks.linear(dtype=dtype)
    task = replace(task, model=replace(task.model, outputs=(Output("y", dtype, ("B", 8)),)))
    (one,) = computed(task, tmp_path)["outputs"]
    assert (one["name"], one["dtype"], one["shape"]) == ("y", dtype, [4, 8])
    values = np.load(one["file"])
    assert values.shape == (4, 8)
    assert values.dtype == np.dtype("float64" if dtype == "float64" else "float32")
    from gnomon.workload.program import build

    np.testing.assert_array_equal(values, build(task).step()[0].to(getattr(torch, str(values.dtype))).numpy())


def test_training_gives_its_loss(tmp_path):
    (one,) = computed(tasks.linear(mode="training"), tmp_path)["outputs"]
    assert (one["name"], one["shape"]) == ("loss", [])


def test_the_digest_knows_dtype_and_shape_as_well_as_bits():
    plain = computed(tasks.linear())["outputs"][0]["digest"]
    assert computed(tasks.linear(dims={"B": 5}))["outputs"][0]["digest"] != plain


def test_outputs_that_are_not_those_declared_are_no_result():
    task = tasks.linear()
    task = replace(task, model=replace(task.model, outputs=(Output("y", "float32", ("B", 9)),)))
    with pytest.raises(CheckFailed, match=r"'y' is declared \[B, 9\]: axis 1"):
        computed(task)
