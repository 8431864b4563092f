import json

import pytest

from gnomon.core.errors import ManifestError
from gnomon.spec.resolve import resolve
from tests.spec.write import write

SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 100, "n_positions": 64}
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **SIZES,
        "torch_dtype": "float32", "auto_map": {"AutoModel": "x.y"}}  # fmt: skip


def test_a_configuration_of_a_language_model_is_a_task(tmp_path):
    resolved = resolve(write(tmp_path, "gpt2-config.json", GPT2))
    assert (resolved.name, resolved.model.source, resolved.model.target) == (
        "gpt2-config",
        "huggingface",
        "GPT2LMHeadModel",
    )
    assert resolved.model.arguments == SIZES
    assert resolved.dims == {"B": 1, "L": 64}
    (tokens,) = resolved.model.inputs
    assert (tokens.name, tokens.shape, tokens.high) == ("input_ids", ("B", "L"), 100.0)
    with pytest.raises(ManifestError, match="the model takes L up to 64, got 65"):
        resolve(tmp_path / "gpt2-config.json", dims={"L": 65})


def test_pictures_and_pairs_of_sequences_have_their_inputs(tmp_path):
    vit = resolve(write(tmp_path, "vit.json", {"model_type": "vit", "image_size": 32, "num_channels": 1}))
    assert (vit.model.target, vit.dims) == ("ViTForImageClassification", {"B": 1, "S": 32})
    assert vit.model.inputs[0].shape == ("B", 1, "S", "S")
    t5 = resolve(write(tmp_path, "t5.json", {"model_type": "t5", "vocab_size": 50}))
    assert [i.name for i in t5.model.inputs] == ["input_ids", "decoder_input_ids"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"a": 1}, "wanted a manifest .* or a configuration of transformers"),
        ({"model_type": "unheard-of"}, "model_type 'unheard-of' is not known"),
        ({"model_type": "new", "architectures": ["NewModel"]}, "the inputs of model_type 'new' are not known"),
        (
            {"model_type": "bert", "vocab_size": 10, "architectures": ["os.system"]},
            "wanted 'target' to be a class of transformers",
        ),
    ],
)
def test_other_json_is_refused(tmp_path, document, message):
    with pytest.raises(ManifestError, match=message):
        resolve(write(tmp_path, "config.json", document))


def test_a_callable_takes_its_inputs_from_the_examples_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "DIMS = {'B': 2, 'L': 7}\nraise SystemExit\n\n\ndef build(): ...\n\n\ndef examples(dims, seed): ...\n"
    )
    with pytest.raises(ManifestError, match="it runs only with --trust"):
        resolve("mine:build")
    resolved = resolve("mine:build", trust=True, dims={"L": 9})
    assert (resolved.name, resolved.dims) == ("mine-build", {"B": 2, "L": 9})
    assert resolved.dataset.examples == "mine:examples"
    (tmp_path / "mine.py").write_text("def build(): ...\n")
    with pytest.raises(ManifestError, match=r"has no function examples\(dims, seed\)"):
        resolve("mine:build", trust=True)


def test_a_manifest_in_json_is_a_manifest(tmp_path):
    from tests.spec.write import task

    assert resolve(write(tmp_path, "task.json", json.loads(json.dumps(task())))).name == "small"
