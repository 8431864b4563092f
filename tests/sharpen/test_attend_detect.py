from dataclasses import replace

import pytest
import torch

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.kernels.detected_attention import DetectedAttention
from gnomon.sharpen.recipe import get, prepare, recipes
from gnomon.spec.task import Model, Tensor
from gnomon.workload.program import Program, caller, flatten

from . import tiny

transformers = pytest.importorskip("transformers")
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48}
RECIPE = get("attend.detect")


def program(model=None):
    """A small BERT on drawn tokens."""
    model = model or transformers.BertModel(
        transformers.BertConfig(vocab_size=50, max_position_embeddings=64, **SMALL), add_pooling_layer=False
    )
    ids = Tensor("input_ids", "int64", ("B", 24), fill="integers", low=0, high=50)
    task = tiny.task(model=Model("bert", "1", "python", "torch.nn:Linear", {}, (ids,)))
    batch = {"input_ids": torch.randint(50, (4, 24))}
    call = caller(model.eval(), batch, "here")

    def predict(inputs):
        with torch.inference_mode():
            return flatten(call(inputs))

    return Program(task, batch, predict, lambda: predict(batch), model)


def apply(own, folder, **options):
    return prepare(own, {"recipe": "attend.detect", "artifacts": str(folder), **options})


def test_keeping_every_key_leaves_the_outputs_as_they_are(tmp_path):
    own = program()
    before = own.step()[0]
    torch.testing.assert_close(apply(own, tmp_path, retention=1.0, steps=0).step()[0], before, rtol=1e-4, atol=1e-5)


def test_detectors_are_trained_once_and_kept_and_the_model_stays_frozen(tmp_path):
    own = program()
    weights = {name: value.clone() for name, value in own.model.state_dict().items()}
    twin = transformers.BertModel(own.model.config, add_pooling_layer=False)
    twin.load_state_dict(weights)
    first = apply(own, tmp_path, retention=0.3, steps=5, batches=2).step()[0]
    (kept,) = tmp_path.glob("detectors-*.safetensors")
    written = kept.stat().st_mtime_ns
    other = program(twin)
    again = apply(replace(other, inputs=own.inputs), tmp_path, retention=0.3, steps=5, batches=2)
    torch.testing.assert_close(again.predict(own.inputs)[0], first, rtol=0, atol=0)
    assert kept.stat().st_mtime_ns == written
    after = own.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    assert all(p.grad is None for p in own.model.parameters())


def test_training_makes_the_estimates_better(tmp_path):
    losses = {}
    for steps in (0, 60):
        torch.manual_seed(0)
        own = apply(program(), tmp_path, retention=0.3, steps=steps, batches=4, rate=0.01)
        detected = [one for one in own.model.modules() if isinstance(one, DetectedAttention)]
        for one in detected:
            one.mode = "observe"
        own.step()
        losses[steps] = sum(float(one.loss) for one in detected)
    assert losses[60] < 0.95 * losses[0]


def test_a_damaged_file_of_detectors_is_made_again(tmp_path):
    own = program()
    apply(own, tmp_path, steps=1, batches=1)
    (kept,) = tmp_path.glob("detectors-*.safetensors")
    good = kept.read_bytes()
    kept.write_bytes(good[:40])
    torch.manual_seed(0)
    apply(program(), tmp_path, steps=1, batches=1)
    assert len(kept.read_bytes()) == len(good)


def test_what_it_does_not_apply_to_is_said():
    assert "attend.detect" in recipes()
    own = program()
    assert RECIPE.why_not(own.task, own) is None
    assert "the task trains" in RECIPE.why_not(replace(own.task, mode="training"), None)
    assert "not one of transformers" in RECIPE.why_not(own.task, tiny.program())
    assert "not run by torch any more" in RECIPE.why_not(own.task, replace(own, model=None))
    llama = transformers.LlamaModel(transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, **SMALL))
    assert "Rotary positions" in RECIPE.why_not(own.task, replace(own, model=llama))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"retention": 0.0}, "retention must be above 0"),
        ({"bits": 5}, "bits must be one of"),
        ({"rank": -1}, "option rank of recipe 'attend.detect' must be an int from 0 on"),
        ({"batches": 0}, "batches and rate of recipe 'attend.detect' must be positive"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options, match):
    with pytest.raises(UsageError, match=match):
        apply(program(), tmp_path, **options)


def test_a_step_that_only_reads_cached_keys_cannot_be_detected(tmp_path):
    model = transformers.GPT2Model(transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=4)).eval()
    cache = model(input_ids=torch.randint(50, (4, 6)), use_cache=True).past_key_values
    own = program(model)

    def predict(inputs):
        with torch.no_grad():
            return (model(input_ids=inputs["input_ids"][:, :1], past_key_values=cache).last_hidden_state,)

    with pytest.raises(NotRunnable, match="reads cached keys"):
        apply(replace(own, predict=predict), tmp_path)
