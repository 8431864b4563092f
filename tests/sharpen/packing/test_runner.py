import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.sharpen.packing import PackedRunner, TopK, pack_encoders, schedule
from gnomon.zoo.text import bert
from gnomon.zoo.text.sentence_embedding import SentenceEncoder
from tests.sharpen.packing.test_encoders import SIZES, model

SENTENCES = [torch.randint(3, 60, (n,)) for n in (4, 11, 1, 7, 7, 2)]


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 120), st.none() | st.integers(1, 5))
def test_a_schedule_holds_every_sentence_once_within_the_budget_longest_first(lengths, budget, most):
    batches = schedule(lengths, budget, most)
    flat = [i for batch in batches for i in batch]
    assert sorted(flat) == [i for i, n in enumerate(lengths) if n]
    assert [lengths[i] for i in flat] == sorted((n for n in lengths if n), reverse=True)
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= budget
        assert most is None or len(batch) <= most


@pytest.mark.parametrize("budget", [1, 12, 1000])
@pytest.mark.parametrize("name", ["BertModel", "BertForSequenceClassification", "RobertaForTokenClassification"])
def test_outputs_come_back_in_order_as_if_each_ran_alone(name, budget):
    plain = model(name)
    with torch.no_grad():
        wanted = [plain(one[None], attention_mask=torch.ones(1, len(one)).long())[0][0] for one in SENTENCES]
    found = PackedRunner(plain, token_budget=budget)(SENTENCES)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)


def test_it_takes_lists_of_numbers_and_further_inputs():
    plain = model("BertModel")
    rows = [{"input_ids": one, "token_type_ids": (one % 2)} for one in SENTENCES]
    with torch.no_grad():
        wanted = [plain(**{k: v[None] for k, v in row.items()})[0][0] for row in rows]
        numbers = [plain(one[None])[0][0] for one in SENTENCES]
    runner = PackedRunner(plain)
    for a, b in zip(runner(rows), wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)
    for a, b in zip(runner([one.tolist() for one in SENTENCES]), numbers, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)
    assert runner([]) == []


def test_embeddings_are_one_row_for_each_sentence():
    found = PackedRunner(SentenceEncoder(**SIZES).double(), token_budget=12)(SENTENCES)
    assert [tuple(one.shape) for one in found] == [(32,)] * 6
    torch.testing.assert_close(torch.stack(found).norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="token_budget must be at least 1 token; got 0"):
        PackedRunner(bert.Encoder(**SIZES), token_budget=0)
    with pytest.raises(
        ValueError, match=r"sentences\[1\] must hold input_ids of at least one token, \[n\]; got shape \[0\]"
    ):
        PackedRunner(bert.Encoder(**SIZES))([[3], []])
    with pytest.raises(ValueError, match="model cannot run packed"):
        PackedRunner(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="most must be at least 1 sentence; got 0"):
        schedule([1], 5, 0)
    packed = bert.Encoder(**SIZES)
    pack_encoders(packed)
    with pytest.raises(ValueError, match="topk must be given where the encoders are packed"):
        PackedRunner(packed, topk=TopK(3))
