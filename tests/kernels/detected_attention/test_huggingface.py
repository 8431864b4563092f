import pytest
import torch
from torch import nn

from gnomon.kernels.detected_attention import detector_loss, detectors_only, set_mode
from gnomon.kernels.detected_attention.huggingface import unwrap, why_not, wrap

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def bert(**others):
    return transformers.BertModel(transformers.BertConfig(vocab_size=50, max_position_embeddings=64, **SIZES, **others))


def roberta():
    return transformers.RobertaModel(transformers.RobertaConfig(vocab_size=50, max_position_embeddings=64, **SIZES))


def gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    )


def vit():
    return transformers.ViTModel(transformers.ViTConfig(image_size=24, patch_size=4, **SIZES))


def inputs(model):
    """A batch; of texts, the second is shorter than the first."""
    if model.config.model_type == "vit":
        return {"pixel_values": torch.randn(2, 3, 24, 24)}
    mask = (torch.arange(20) < torch.tensor([[20], [13]])).long()
    return {"input_ids": torch.randint(4, 50, (2, 20)), "attention_mask": mask}


@torch.no_grad()
def outputs(model, batch):
    found = model.eval()(**batch)[0]
    return found[batch["attention_mask"].bool()] if "attention_mask" in batch else found


@pytest.mark.parametrize("build", [bert, roberta, gpt2, vit])
@pytest.mark.parametrize("granularity", ["token", "block"])
def test_a_wrapped_model_that_keeps_everything_is_the_model(build, granularity):
    model = build()
    batch = inputs(model)
    dense = outputs(model, batch)
    wrap(model, retention=1.0, granularity=granularity, block=(8, 8))
    torch.testing.assert_close(outputs(model, batch), dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [bert, gpt2, vit])
def test_a_wrapped_model_differs_when_it_omits_and_is_the_old_one_after_unwrapping(build):
    model = build()
    batch, names = inputs(model), set(model.state_dict())
    dense = outputs(model, batch)
    wrapped = wrap(model, retention=0.1)
    assert len(wrapped) == 2
    sparse = outputs(model, batch)
    assert not torch.allclose(sparse, dense, atol=1e-4)
    set_mode(model, "dense")
    torch.testing.assert_close(outputs(model, batch), dense, rtol=1e-4, atol=1e-5)
    unwrap(model)
    torch.testing.assert_close(outputs(model, batch), dense, rtol=0, atol=0)
    assert set(model.state_dict()) == names


def test_padding_does_not_change_the_tokens_before_it():
    model = bert()
    wrap(model, retention=0.3)
    batch = inputs(model)
    alone = {"input_ids": batch["input_ids"][1:, :13], "attention_mask": batch["attention_mask"][1:, :13]}
    torch.testing.assert_close(outputs(model, batch)[20:], outputs(model, alone), rtol=1e-4, atol=1e-5)


def test_a_causal_model_does_not_look_ahead_for_keys():
    model = gpt2()
    for attention in wrap(model, retention=0.3, bits=None):  # the scale of rounding looks at the whole sequence
        torch.nn.init.normal_(attention.detector.wq_HRR)
    ids = torch.randint(4, 50, (1, 20))
    changed = ids.clone()
    changed[0, 15:] = 1
    torch.testing.assert_close(
        outputs(model, {"input_ids": ids})[0, :15], outputs(model, {"input_ids": changed})[0, :15]
    )


def test_detectors_start_from_the_projections_of_the_layer():
    model, batch = bert(), torch.randint(4, 50, (2, 20))
    wrap(model, rank=32, bits=None)
    wrapped = model.encoder.layer[0].attention.self.detected
    with torch.no_grad():
        wrapped.detector.P_CR.copy_(torch.eye(32))
        attention = model.encoder.layer[0].attention.self
        maps = [m.weight.T.unflatten(1, (4, 8)).transpose(0, 1) for m in (attention.query, attention.key)]
        wrapped.detector.start_from(*maps, 8**-0.5)
        set_mode(model, "observe")
        model(input_ids=batch)
    assert float(wrapped.loss) < 1e-6


def test_detectors_of_a_wrapped_model_learn_on_their_own():
    model = bert()
    for attention in wrap(model, rank=24):
        nn.init.normal_(attention.detector.wq_HRR)
    before = {name: p.clone() for name, p in model.named_parameters()}
    batch, losses = inputs(model), []
    with detectors_only(model) as parameters:
        optimizer = torch.optim.Adam(parameters, 0.01)
        for _ in range(40):
            model(**batch)
            loss = detector_loss(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all(".detected.detector." in name for name in changed)


def test_detectors_are_saved_with_the_model():
    one, other = bert(), bert()
    wrap(one, seed=1)
    wrap(other, seed=2)
    other.load_state_dict(one.state_dict())
    batch = inputs(one)
    torch.testing.assert_close(outputs(other, batch), outputs(one, batch), rtol=0, atol=0)


def test_generation_with_a_cache_keeps_to_the_dense_model_when_all_is_kept():
    model = gpt2().eval()
    batch = inputs(model)
    batch = {name: x[:1] for name, x in batch.items()}
    dense = model.generate(**batch, max_new_tokens=6, do_sample=False, pad_token_id=0)
    wrap(model, retention=1.0)
    assert torch.equal(model.generate(**batch, max_new_tokens=6, do_sample=False, pad_token_id=0), dense)


def test_a_model_of_half_precision_selects_in_whole_numbers():
    model = bert().to(torch.bfloat16)
    wrap(model, retention=0.3)
    found = outputs(model, inputs(model))
    assert found.dtype == torch.bfloat16
    assert torch.isfinite(found).all()


def test_what_cannot_be_wrapped_is_refused_with_the_reason():
    llama = transformers.LlamaModel(transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, **SIZES))
    with pytest.raises(ValueError, match=r"LlamaModel has LlamaAttention; known: BertSelfAttention.*Rotary positions"):
        wrap(llama)
    with pytest.raises(ValueError, match="Linear is not a Transformers model"):
        wrap(nn.Linear(2, 2))
    model = bert()
    with pytest.raises(ValueError, match="model is not wrapped"):
        unwrap(model)
    assert why_not(model) is None
    wrap(model)
    with pytest.raises(ValueError, match="it is wrapped already"):
        wrap(model)
    with pytest.raises(ValueError, match="retention must be above 0"):
        wrap(bert(), retention=0)
    with pytest.raises(ValueError, match="bits must be one of"):
        wrap(bert(), bits=5)
    cross = bert(is_decoder=True, add_cross_attention=True)
    with pytest.raises(ValueError, match="BertCrossAttention"):
        wrap(cross)
