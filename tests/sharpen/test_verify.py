import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import CheckFailed, ManifestError
from gnomon.core.records import structure, to_json
from gnomon.sharpen.record import Verification
from gnomon.sharpen.verify import evaluate, outputs_distance
from gnomon.spec.task import Model, Quality, Tensor, Training
from tests.sharpen import tiny
from tests.sharpen.tiny import task


def verified(tmp_path, *names, **changes):
    requests = [{"recipe": name, "options": {}} if isinstance(name, str) else name for name in names]
    arguments = {"task": to_json(task(**changes)), "recipes": requests, "artifacts": str(tmp_path)}
    return {one["recipe"]: structure(Verification, one) for one in evaluate(arguments)}


def rows(*values):
    return [((torch.tensor(values[0]),), (torch.tensor(values[1]),))]


@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_nothing_lies_at_no_distance_from_itself(values):
    distance = outputs_distance(rows(values, values))
    assert distance.mean_cosine == pytest.approx(1)
    assert distance.least_cosine == pytest.approx(1)
    assert distance.largest_difference == 0
    assert distance.rows == len(values)


def test_cosines_are_those_of_the_angles():
    distance = outputs_distance(rows([[1.0, 0.0], [1.0, 0.0]], [[0.0, 3.0], [1.0, 1.0]]))
    assert distance.least_cosine == pytest.approx(0, abs=1e-12)
    assert distance.mean_cosine == pytest.approx(math.cos(math.pi / 4) / 2)
    assert distance.largest_difference == 3


def test_rows_of_several_batches_count_together_and_every_output_is_looked_at():
    batch = torch.randn(3, 2, 4)
    pairs = [((batch, torch.zeros(2)), (batch, torch.tensor([0.0, 0.25]))) for _ in range(2)]
    distance = outputs_distance(pairs)
    assert (distance.rows, distance.largest_difference) == (6, 0.25)


def test_a_row_that_became_zero_is_at_a_right_angle():
    assert outputs_distance(rows([[1.0, 2.0]], [[0.0, 0.0]])).mean_cosine == 0


def test_equal_infinities_of_a_mask_are_no_difference_and_a_new_one_is_a_failure():
    inf = float("inf")
    assert outputs_distance(rows([[1.0, -inf]], [[1.0, -inf]])).largest_difference == 0
    assert outputs_distance(rows([[1.0, -inf]], [[2.0, -inf]])).largest_difference == 1
    with pytest.raises(CheckFailed, match="finite is infinite"):
        outputs_distance(rows([[1.0, 2.0]], [[1.0, inf]]))


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ((torch.ones(2, 3),), r"output 0 has shape \(2, 3\); without the recipe \(2, 2\)"),
        ((torch.full((2, 2), float("nan")),), "4 NaN in output 0"),
        ((torch.ones(2, 2), torch.ones(1)), "2 outputs; without the recipe 1"),
    ],
)
def test_nan_a_changed_shape_and_another_output_are_failures(after, message):
    with pytest.raises(CheckFailed, match=message):
        outputs_distance([((torch.ones(2, 2),), after)])


def test_a_failing_recipe_does_not_spoil_its_neighbours(tmp_path):
    names = ("test-explodes", "test-unable", "test-nan", "test-reshapes", "test-draws", "bf16")
    found = verified(tmp_path, *names)
    assert list(found) == list(names)
    assert found["test-explodes"].failure == "ZeroDivisionError: inside a recipe"
    assert found["test-unable"].why_not == "it takes a machine that nobody has"
    assert "64 NaN in output 0" in found["test-nan"].failure
    assert "shape (4, 15)" in found["test-reshapes"].failure
    assert found["test-draws"].distance.mean_cosine == pytest.approx(1)
    assert 0.999 < found["bf16"].distance.mean_cosine < 1
    for one in found.values():
        assert sum(x is not None for x in (one.why_not, one.failure, one.distance)) == 1


def test_the_batches_are_different_draws(tmp_path):
    tiny.SEEN.clear()
    verified(tmp_path, "test-watches")
    assert len(tiny.SEEN) == 4  # 16 rows in batches of 4
    assert len({float(batch.sum()) for batch in tiny.SEEN}) == 4


def test_options_reach_the_recipe_and_the_distance_says_what_they_did(tmp_path):
    found = verified(tmp_path, {"recipe": "test-drifts", "options": {"amount": 0.5}})["test-drifts"]
    assert found.options == {"amount": 0.5}
    assert found.distance.rows == 16
    assert found.distance.least_cosine < found.distance.mean_cosine < 1
    assert found.distance.largest_difference == pytest.approx(0.5, abs=1e-6)


def test_quality_is_measured_before_and_after(tmp_path):
    quality = Quality(evaluate="tests.sharpen.tiny:size_of_outputs", metric="size")
    changes = {"quality": quality, "trusted": True, "folder": "."}
    found = verified(tmp_path, {"recipe": "test-drifts", "options": {"amount": 50.0}}, "test-draws", **changes)
    drifted, same = found["test-drifts"], found["test-draws"]
    assert drifted.quality_before == same.quality_before == same.quality_after
    assert drifted.quality_after["size"] == pytest.approx(50, abs=2)


def test_a_metric_that_the_measure_does_not_give_is_the_tasks_own_failure(tmp_path):
    quality = Quality(evaluate="tests.sharpen.tiny:size_of_outputs", metric="accuracy")
    with pytest.raises(CheckFailed, match=r"gives size; quality\.metric is 'accuracy'"):
        verified(tmp_path, "test-draws", quality=quality, trusted=True, folder=".")


def test_a_task_that_cannot_be_built_raises_what_building_raises(tmp_path):
    with pytest.raises(ManifestError):
        verified(tmp_path, "bf16", dims={})


def test_a_recipe_that_does_not_apply_says_so_and_an_unknown_option_is_its_failure(tmp_path):
    found = verified(tmp_path, "onnx-fp32", mode="training", training=Training())
    assert "cannot be trained" in found["onnx-fp32"].why_not
    found = verified(tmp_path, {"recipe": "bf16", "options": {"speed": 9}})
    assert "has no option 'speed'" in found["bf16"].failure


def test_training_compares_the_gradient_and_the_losses_of_the_first_steps(tmp_path):
    found = verified(tmp_path, "bf16", "test-draws", mode="training", training=Training(learning_rate=0.1))
    same, cast = found["test-draws"].distance, found["bf16"].distance
    assert (same.mean_cosine, same.largest_difference, same.rows) == (pytest.approx(1), 0, 1)
    assert 0.999 < cast.mean_cosine <= 1
    assert 0 < cast.largest_difference < 0.05


def test_dropout_does_not_hide_what_training_compares(tmp_path):
    x = Tensor("src", "float32", ("B", 3, 16))
    arguments = {"d_model": 16, "nhead": 2, "dim_feedforward": 16, "dropout": 0.5, "batch_first": True}
    model = Model("layer", "1", "python", "torch.nn:TransformerEncoderLayer", arguments, (x,))
    found = verified(tmp_path, "test-draws", model=model, mode="training", training=Training(learning_rate=0.1))
    assert found["test-draws"].distance.mean_cosine == pytest.approx(1)
