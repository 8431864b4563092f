import copy
from dataclasses import replace

import pytest
import torch

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.sharpen.passes.attend_pack import recipe
from gnomon.sharpen.verify import outputs_distance
from gnomon.spec.task import Tensor, Training
from gnomon.workload.program import Program
from gnomon.zoo.text.sentence_embedding import SentenceEncoder
from tests.sharpen import tiny
from tests.sharpen.packing.test_encoders import SIZES, batch

OPTIONS = dict(recipe.options)


def task(**changes):
    plain = tiny.task()
    inputs = tuple(Tensor(name, "int64", ("B", "L")) for name in ("input_ids", "attention_mask"))
    return replace(plain, dims={"B": 4, "L": 12}, model=replace(plain.model, inputs=inputs), **changes)


def program(lengths=(12, 1, 5, 7)):
    torch.manual_seed(0)
    model = SentenceEncoder(**SIZES).eval()
    ids, mask = batch(list(lengths), 12)
    inputs = {"input_ids": ids, "attention_mask": mask}

    def predict(given):
        with torch.inference_mode():
            return (model(**given),)

    return Program(task(), inputs, predict, lambda: predict(inputs), model)


def test_it_gives_the_same_embeddings_from_fewer_tokens(tmp_path):
    plain = program()
    wanted = plain.step()
    changed = recipe.prepare(plain, OPTIONS, tmp_path)
    seen = []
    changed.model.bert.encoder["layer"][0].register_forward_hook(lambda _, args, out: seen.append(args[0].shape[0]))
    distance = outputs_distance([(wanted, changed.step())])
    assert seen == [25]
    assert distance.least_cosine > 1 - 1e-6
    assert distance.largest_difference < 1e-5


def test_topk_moves_the_embeddings_and_more_keys_move_them_less(tmp_path):
    wanted = program().step()
    cosines = []
    for topk in (1, 4, 12):
        changed = recipe.prepare(program(), {"topk": topk, "bits": 8}, tmp_path)
        cosines.append(outputs_distance([(wanted, changed.step())]).mean_cosine)
    assert cosines[0] < cosines[1] < cosines[2]
    assert cosines[2] == pytest.approx(1, abs=1e-6)


def test_tasks_that_it_cannot_serve_are_told_why():
    plain = task()
    assert recipe.why_not(plain, None) is None
    assert recipe.why_not(plain, program()) is None
    assert "the task trains; LengthAwareSampler" in recipe.why_not(task(mode="training", training=Training()), None)
    onnx = replace(plain, model=replace(plain.model, source="onnx"))
    assert recipe.why_not(onnx, None) == "the model is run by ONNX Runtime, not by torch"
    assert recipe.why_not(tiny.task(), None) == (
        "the task has no input 'attention_mask', so nothing says what is padding"
    )
    assert recipe.why_not(plain, replace(program(), model=None)) == "the model is not run by torch any more"
    assert "no text encoder that can run without padding" in recipe.why_not(
        plain, replace(program(), model=torch.nn.Linear(2, 2))
    )


def test_a_batch_without_padding_is_refused_unless_keys_are_chosen(tmp_path):
    with pytest.raises(NotRunnable, match="no text of the task's example batch is padded"):
        recipe.prepare(program((12, 12)), OPTIONS, tmp_path)
    assert recipe.prepare(program((12, 12)), {**OPTIONS, "topk": 3}, tmp_path).step()[0].shape == (2, 32)


@pytest.mark.parametrize("options", [{"topk": -1, "bits": 4}, {"topk": 0, "bits": 0}, {"topk": 5, "bits": 17}])
def test_options_out_of_range_are_refused(options, tmp_path):
    with pytest.raises(UsageError, match=f"got {options['topk']} and {options['bits']}"):
        recipe.prepare(program(), options, tmp_path)


def test_the_program_that_comes_back_still_predicts_other_batches(tmp_path):
    plain, other = program(), copy.deepcopy(program((2, 12, 3)).inputs)
    wanted = plain.predict(other)
    changed = recipe.prepare(plain, OPTIONS, tmp_path)
    torch.testing.assert_close(changed.predict(other)[0], wanted[0], atol=1e-5, rtol=1e-5)
