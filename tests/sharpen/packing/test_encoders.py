"""Packed encoders against the same encoders with padding, in float64."""

import copy
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gnomon.sharpen.packing import TopK, pack_encoders, why_not
from gnomon.zoo.text import bert

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 40,
}  # fmt: skip
DISTIL = {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}
MODELS = {
    "BertModel": ("BertConfig", SIZES),
    "RobertaModel": ("RobertaConfig", SIZES),
    "XLMRobertaModel": ("XLMRobertaConfig", SIZES),
    "CamembertModel": ("CamembertConfig", SIZES),
    "DistilBertModel": ("DistilBertConfig", DISTIL),
    "ElectraModel": ("ElectraConfig", {**SIZES, "embedding_size": 16}),
    "AlbertModel": ("AlbertConfig", {**SIZES, "embedding_size": 16}),
    "BertForSequenceClassification": ("BertConfig", {**SIZES, "num_labels": 3}),
    "RobertaForTokenClassification": ("RobertaConfig", SIZES),
}


def model(name, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        config, sizes = MODELS[name]
        return getattr(transformers, name)(getattr(transformers, config)(**{**sizes, **changes})).double().eval()


def batch(lengths, width=None):
    """Numbers from 3 on: 1 is RoBERTa's padding."""
    width = width or max(lengths)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return torch.randint(3, 60, (len(lengths), width)).where(mask.bool(), torch.tensor(1)), mask


def tokens_of(output, mask):
    """The outputs without what padding gave."""
    return [x[mask.bool()] if x.shape[:2] == mask.shape else x for x in output.values()]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_packed_model_of_transformers_gives_what_it_gave(name):
    plain = model(name)
    packed = copy.deepcopy(plain)
    assert pack_encoders(packed) == 1
    ids, mask = batch([12, 1, 5, 7])
    a, b = (one(input_ids=ids, attention_mask=mask) for one in (plain, packed))
    assert type(a) is type(b)
    assert a.keys() == b.keys()
    torch.testing.assert_close(tokens_of(a, mask), tokens_of(b, mask), atol=1e-12, rtol=1e-9)
    as_tuple = packed(input_ids=ids, attention_mask=mask, return_dict=False)
    assert isinstance(as_tuple, tuple)
    torch.testing.assert_close(as_tuple[0], b[0])


@torch.no_grad()
def test_padding_may_be_anywhere_and_segments_and_positions_go_along():
    plain = model("BertModel")
    packed = copy.deepcopy(plain)
    pack_encoders(packed)
    ids = torch.randint(3, 60, (3, 9))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 0, 1, 0, 1], [1, 1, 1, 0, 0, 0, 0, 0, 0]])
    more = {"token_type_ids": torch.randint(0, 2, (3, 9)), "position_ids": torch.randint(0, 40, (1, 9))}
    for extra in ({}, more):
        a, b = (one(ids, attention_mask=mask, **extra).last_hidden_state for one in (plain, packed))
        torch.testing.assert_close(a[mask.bool()], b[mask.bool()], atol=1e-12, rtol=1e-9)
        assert b[~mask.bool()].eq(0).all()


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any))
def test_the_zoos_encoder_gives_what_it_gave_for_every_mix_of_lengths(lengths):
    torch.manual_seed(0)
    plain = bert.Encoder(**SIZES).double().eval()
    packed = copy.deepcopy(plain)
    pack_encoders(packed)
    ids, mask = batch(lengths, 20)
    with torch.no_grad():
        a, b = (one(ids, mask)[mask.bool()] for one in (plain, packed))
    torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)


def test_what_stands_behind_the_mask_is_not_computed():
    encoder = bert.Encoder(**SIZES).double().eval()
    seen = []
    encoder.encoder["layer"][0].register_forward_hook(lambda _, args, out: seen.append(tuple(args[0].shape)))
    pack_encoders(encoder)
    encoder(*batch([3, 9, 1]))
    full = batch([4, 4])
    encoder(*full)
    assert seen == [(13, 32), (2, 4, 32)]  # without padding there is nothing to pack


@torch.no_grad()
def test_calls_that_ask_for_more_run_as_before():
    plain = model("BertModel")
    packed = copy.deepcopy(plain)
    pack_encoders(packed)
    ids, mask = batch([5, 2])
    for extra in ({"output_hidden_states": True}, {"attention_mask": mask[:, None, None, :].bool().expand(2, 1, 5, 5)}):
        a, b = (one(ids, **{"attention_mask": mask, **extra}) for one in (plain, packed))
        torch.testing.assert_close(a.last_hidden_state, b.last_hidden_state)
    assert len(packed(ids, attention_mask=mask, output_hidden_states=True).hidden_states) == 3
    torch.testing.assert_close(plain(ids).last_hidden_state, packed(ids).last_hidden_state)
    torch.testing.assert_close(
        plain(inputs_embeds=plain.embeddings.word_embeddings(ids), attention_mask=mask).last_hidden_state,
        packed(inputs_embeds=plain.embeddings.word_embeddings(ids), attention_mask=mask).last_hidden_state,
    )


def test_gradients_flow_through_a_packed_model():
    plain = model("BertModel")
    packed = copy.deepcopy(plain)
    pack_encoders(packed)
    ids, mask = batch([6, 2, 4])
    for one in (plain, packed):
        one(ids, attention_mask=mask).last_hidden_state[mask.bool()].square().sum().backward()
    for a, b in zip(plain.parameters(), packed.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-10, rtol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("name", ["BertModel", None])
def test_topk_of_all_keys_is_exact_and_of_few_is_near(name):
    plain = model(name) if name else bert.Encoder(**SIZES).double().eval()
    ids, mask = batch([12, 3, 9])

    def run(one):
        out = one(ids, attention_mask=mask)
        return (out if isinstance(out, torch.Tensor) else out.last_hidden_state)[mask.bool()]

    wanted = run(plain)
    apart = []
    for keys in (12, 9, 2):
        other = copy.deepcopy(plain)
        pack_encoders(other, TopK(keys, 8))
        apart.append(float((run(other) - wanted).abs().max()))
    assert apart[0] < 1e-12 < apart[1] < apart[2] < 3


def test_topk_chooses_in_a_batch_without_padding_too():
    plain = bert.Encoder(**SIZES).double().eval()
    other = copy.deepcopy(plain)
    pack_encoders(other, TopK(2, 4))
    ids, mask = batch([8, 8])
    assert not torch.allclose(plain(ids, mask), other(ids, mask))


def test_models_that_cannot_run_packed_say_why():
    assert "no text encoder that can run without padding" in why_not(nn.Linear(2, 2))
    assert (
        why_not(model("BertModel", is_decoder=True)) == "the model is a decoder, whose cache is laid out by padded rows"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import DebertaV2Config, DebertaV2Model

        sizes = {k: v for k, v in SIZES.items()}
        other = DebertaV2Model(DebertaV2Config(**sizes))
    assert why_not(other).startswith(
        "no packed execution is known for models of type 'deberta-v2'; known: bert, roberta"
    )
    with pytest.raises(ValueError, match="model cannot run packed: the model has no text encoder"):
        pack_encoders(nn.Linear(2, 2))


def test_a_model_is_packed_once():
    encoder = bert.Encoder(**SIZES)
    assert why_not(encoder) is None
    pack_encoders(encoder)
    with pytest.raises(ValueError, match="model runs packed already"):
        pack_encoders(encoder)
