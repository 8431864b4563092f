import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from gnomon.zoo.sequence import associative_recall as recall
from gnomon.zoo.sequence.associative_recall import Recall, RecallTransformer

SMALL = Recall(pairs=6, queries=3, keys=8, values=4)


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 1000))
def test_every_query_asks_for_the_value_of_a_key_that_is_there(pairs, queries, seed):
    task = Recall(pairs, queries, keys=8, values=4)
    drawn = task.draw(5, torch.Generator().manual_seed(seed))
    for keys, values, answers in zip(*(x.tolist() for x in drawn), strict=True):
        stored = {k: v for k, v in zip(keys, values, strict=True) if v < 4}
        asked = [(k, a) for k, v, a in zip(keys, values, answers, strict=True) if v == 4]
        assert len(stored) == pairs
        assert len(asked) == queries
        assert all(stored[key] == answer for key, answer in asked)
        assert [a for v, a in zip(values, answers, strict=True) if v < 4] == [-100] * pairs


def test_queries_stand_anywhere():
    drawn = Recall().draw(64, torch.Generator().manual_seed(0))
    share = (drawn.answers >= 0).float().mean(0)
    assert drawn.keys.shape == (64, 128)
    assert (share - 0.25).abs().max() < 5 * (0.25 * 0.75 / 64) ** 0.5


def test_the_attention_of_a_layer_can_be_replaced():
    model, drawn = RecallTransformer(SMALL, 16, 2), SMALL.draw(2, torch.Generator().manual_seed(0))
    dense = model(drawn.keys, drawn.values)
    seen = []

    def attend(x, q, k, v):
        seen.append((x.shape, q.shape))
        return scaled_dot_product_attention(q, k, v)

    for attention in model.attentions():
        attention.attend = attend
    torch.testing.assert_close(model(drawn.keys, drawn.values), dense)
    assert seen == [((2, 9, 16), (2, 2, 9, 8))] * 2


def test_a_model_learns_a_small_task_and_a_seed_gives_the_same_losses():
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        model = RecallTransformer(SMALL, 32, 2)
        losses.append(recall.fit(model, SMALL, seed=1, steps=250, batch=32, learning_rate=3e-3))
    assert losses[0] == losses[1]
    assert recall.accuracy(model, SMALL, seed=2, sequences=64) > 0.9


def test_only_what_is_asked_for_is_trained():
    model = RecallTransformer(SMALL, 16, 2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    recall.fit(model, SMALL, seed=0, steps=2, parameters=[model.answer.weight])
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["answer.weight"]


def test_accuracy_counts_queries_alone():
    class Oracle(torch.nn.Module):
        def forward(self, keys, values):
            same = (keys[:, :, None] == keys[:, None, :]) & (values[:, None, :] < 4)
            found = torch.where(same, values[:, None, :], 0).sum(-1)
            return torch.nn.functional.one_hot(found.where(values == 4, 0), 4).float()

    assert recall.accuracy(Oracle(), SMALL, seed=0, sequences=32) == 1.0


def test_more_pairs_than_keys_are_refused():
    with pytest.raises(ValueError, match="pairs must be 1 to 8, one for each different key; got 9"):
        Recall(pairs=9, keys=8)
