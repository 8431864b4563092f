import warnings

import pytest
import torch

from gnomon.zoo.text import bert

SMALL = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 20, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
}  # fmt: skip


def test_it_is_the_bert_of_transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    theirs = BertModel(BertConfig(**SMALL), add_pooling_layer=False).double().eval()
    ours = bert.Encoder(**SMALL).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    tokens, mask = torch.randint(0, 60, (3, 12)), torch.ones(3, 12, dtype=torch.long)
    mask[1, 7:] = 0
    with torch.no_grad():
        expected = theirs(input_ids=tokens, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(ours(tokens, mask)[mask.bool()], expected[mask.bool()])


def test_what_stands_behind_the_mask_changes_nothing():
    torch.manual_seed(0)
    model = bert.Encoder(**SMALL).double()
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    a, b = torch.randint(0, 60, (2, 1, 5))
    b[:, :3] = a[:, :3]
    torch.testing.assert_close(model(a, mask)[:, :3], model(b, mask)[:, :3])


def test_heads_must_divide_the_hidden_size():
    with pytest.raises(ValueError, match="hidden_size 32 is no multiple of num_attention_heads 5"):
        bert.Encoder(**{**SMALL, "num_attention_heads": 5})
