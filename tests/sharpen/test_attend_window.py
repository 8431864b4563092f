import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.kernels.neighborhood_attention import Problem
from gnomon.sharpen import windowed
from gnomon.sharpen.recipe import get, prepare, recipes
from gnomon.sharpen.windowed import Window, use_windows

from . import tiny

transformers = pytest.importorskip("transformers")
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}


def bert(**changes):
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=64, **{**SMALL, **changes})
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def llama():
    config = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, max_position_embeddings=64, **SMALL)
    return transformers.LlamaModel(config).eval()


def vit(image=24, patch=4):
    return transformers.ViTModel(transformers.ViTConfig(image_size=image, patch_size=patch, **SMALL), False).eval()


def tokens(length=24, batch=2):
    return torch.randint(50, (batch, length))


def windows(model, window, **inputs):
    """The model with windows in it, and its output."""
    model = copy.deepcopy(model)
    use_windows(model, window, lambda: model(**inputs))
    return model, model(**inputs).last_hidden_state


def mask(problem):
    return torch.from_numpy(problem.mask())


@pytest.mark.parametrize("window", [Window(5, 3), Window(4, 3, stride=3), Window(5, 3, dilation=2)])
def test_an_encoder_with_windows_is_the_encoder_under_the_mask_of_the_windows(window):
    model, ids = bert(), tokens()
    problem = Problem.of((24,), window.tokens, window.stride, window.dilation)
    wanted = model(input_ids=ids, attention_mask=mask(problem)[None, None]).last_hidden_state
    torch.testing.assert_close(windows(model, window, input_ids=ids)[1], wanted, rtol=1e-4, atol=1e-5)


def test_a_decoder_sees_its_window_of_the_past():
    model, ids = llama(), tokens()
    causal = mask(Problem.of((24,), 5, is_causal=True))
    wanted = model(input_ids=ids, attention_mask=causal[None, None].expand(2, 1, 24, 24)).last_hidden_state
    _, got = windows(model, Window(5, 3), input_ids=ids)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [Window(5, 3), Window(5, 3, dilation=2)])
def test_a_decoder_that_goes_on_from_a_cache_sees_the_same(window):
    model, ids = llama(), tokens()
    model, whole = windows(model, window, input_ids=ids)
    cached = model(input_ids=ids[:, :20], use_cache=True)
    rest = []
    for piece in (ids[:, 20:21], ids[:, 21:24]):
        cached = model(input_ids=piece, past_key_values=cached.past_key_values, use_cache=True)
        rest.append(cached.last_hidden_state)
    torch.testing.assert_close(torch.cat(rest, 1), whole[:, 20:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_model_that_only_ever_goes_on_from_a_cache_gets_its_windows():
    model, ids = llama(), tokens()
    before = model(input_ids=ids[:, :23], use_cache=True).past_key_values

    def step(of):
        return of(input_ids=ids[:, 23:], past_key_values=copy.deepcopy(before), use_cache=True).last_hidden_state

    with pytest.raises(NotRunnable, match=r"windows of 24 tokens, .* see all of the example batch"):
        use_windows(windowed_model := copy.deepcopy(model), Window(24, 3), lambda: step(windowed_model))
    use_windows(windowed_model := copy.deepcopy(model), Window(5, 3), lambda: step(windowed_model))
    seen = torch.zeros(1, 24, dtype=torch.bool)
    seen[:, -5:] = True
    wanted = model(
        input_ids=ids[:, 23:], past_key_values=copy.deepcopy(before), attention_mask=seen.expand(2, 1, 1, 24)
    ).last_hidden_state
    torch.testing.assert_close(step(windowed_model), wanted, rtol=1e-4, atol=1e-5)


# not at the left in a decoder, whose positions would change
@pytest.mark.parametrize(("make", "side"), [(bert, "right"), (bert, "left"), (llama, "right")])
def test_padded_texts_come_out_as_they_do_alone(make, side):
    model, ids, lengths = make(), tokens(batch=3), (24, 9, 4)
    keep = torch.zeros(3, 24, dtype=torch.int64)
    for row, n in enumerate(lengths):
        keep[row, slice(0, n) if side == "right" else slice(24 - n, 24)] = 1
    positions = (keep.cumsum(1) - 1).clamp(min=0)
    _, got = windows(model, Window(5, 3), input_ids=ids, attention_mask=keep, position_ids=positions)
    for row, n in enumerate(lengths):
        text = keep[row].bool()
        alone = copy.deepcopy(model)
        if n > 5:
            _, wanted = windows(alone, Window(5, 3), input_ids=ids[row, text][None])
        else:
            wanted = alone(input_ids=ids[row, text][None]).last_hidden_state
        torch.testing.assert_close(got[row, text][None], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [Window(9, 3), Window(9, 4, stride=2)])
def test_patches_see_their_square_and_the_class_token_which_sees_all(window):
    model, pixels = vit(), torch.randn(2, 3, 24, 24)
    seen = torch.ones(37, 37, dtype=torch.bool)  # the class token, and 6 x 6 patches
    seen[1:, 1:] = mask(Problem.of((6, 6), window.side, window.stride))

    def masked(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **options):
        out = scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
        return out.transpose(1, 2).contiguous(), None

    transformers.AttentionInterface.register("test_masked", masked)
    other = copy.deepcopy(model)
    other.set_attn_implementation("test_masked")
    wanted = other(pixels).last_hidden_state
    torch.testing.assert_close(windows(model, window, pixel_values=pixels)[1], wanted, rtol=1e-4, atol=1e-5)


def test_windows_that_see_everything_are_refused_and_ones_that_nearly_do_change_little():
    model, ids = bert(), tokens(24)
    with pytest.raises(NotRunnable, match=r"windows of 24 tokens, or 3 x 3 patches, see all of the example batch"):
        windows(model, Window(24, 3), input_ids=ids)
    dense = model(input_ids=ids).last_hidden_state
    near, far = (windows(model, Window(w, 3), input_ids=ids)[1] for w in (23, 3))
    assert (near - dense).norm() < (far - dense).norm() / 3


def test_gradients_go_through_the_windows():
    model, ids = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train(), tokens()
    assert windowed.why_not(model) is None
    seen = mask(Problem.of((24,), 5))[None, None]
    wanted = torch.autograd.grad(
        model(input_ids=ids, attention_mask=seen).last_hidden_state.square().sum(), list(model.parameters())
    )
    own, got = windows(model, Window(5, 3), input_ids=ids)
    torch.testing.assert_close(
        torch.autograd.grad(got.square().sum(), list(own.parameters())), wanted, rtol=1e-3, atol=1e-3
    )


class NoInterface(nn.Module):
    def forward(self, x):
        return x


def test_models_whose_attention_cannot_be_exchanged_say_why():
    assert "not one of transformers" in windowed.why_not(NoInterface())
    assert "dropped in training (0.1)" in windowed.why_not(bert().train())
    assert windowed.why_not(bert()) is None
    assert windowed.why_not(nn.Sequential(NoInterface(), bert())) is None
    t5 = transformers.T5Config(vocab_size=50, d_model=32, d_kv=8, num_heads=4, num_layers=1, d_ff=64)
    assert "T5EncoderModel does not take its attention" in windowed.why_not(transformers.T5EncoderModel(t5).eval())


def test_masks_that_say_more_than_padding_are_refused():
    model, ids = bert(), tokens()
    blocks = torch.block_diag(torch.ones(12, 12), torch.ones(12, 12)).bool()  # two packed texts
    with pytest.raises(NotRunnable, match="hides more than padding"):
        windows(model, Window(5, 3), input_ids=ids, attention_mask=blocks[None, None].expand(2, 1, 24, 24))
    with pytest.raises(NotRunnable, match="adds a bias to the scores"):
        windows(model, Window(5, 3), input_ids=ids, attention_mask=torch.randn(2, 1, 24, 24))
    with pytest.raises(NotRunnable, match=r"the attention mask is \[2, 4, 24, 24\]"):
        windows(model, Window(5, 3), input_ids=ids, attention_mask=torch.zeros(2, 4, 24, 24))


def test_a_mask_with_holes_is_refused():
    keep = torch.ones(2, 24, dtype=torch.int64)
    keep[1, 7] = 0
    with pytest.raises(NotRunnable, match="hides tokens within a text"):
        windows(bert(), Window(5, 3), input_ids=tokens(), attention_mask=keep)


def test_a_model_that_is_never_called_is_refused():
    with pytest.raises(NotRunnable, match="no attention of the model went through"):
        use_windows(bert(), Window(5, 3), lambda: None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "option window .* positive int; got 0"),
        ({"side": True}, "option side .* got True"),
        ({"stride": 8}, "option stride .* must not be larger than window and side"),
    ],
)
def test_bad_options_are_usage_errors(options, message):
    with pytest.raises(UsageError, match=message):
        get("attend.window").prepare(tiny.program(), {**get("attend.window").options, **options}, Path())


def test_the_recipe_is_registered_and_says_what_it_does_not_apply_to():
    assert "attend.window" in recipes()
    with pytest.raises(
        NotRunnable, match=r"'attend\.window' does not apply to tiny: the model is not one of transformers"
    ):
        prepare(tiny.program(), {"recipe": "attend.window", "artifacts": "unused"})
