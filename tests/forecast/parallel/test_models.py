"""Tensor parallelism on models as Hugging Face writes them: other ways to fuse, view and share than in our own."""

import functools

import pytest
import torch

from gnomon.forecast.parallel.micro import micro_batch
from gnomon.forecast.parallel.tensor import tensor_parallel
from gnomon.workload.capture import capture

from .build import assert_sound, collectives

transformers = pytest.importorskip("transformers")
LAYERS, HIDDEN, TOKENS, BATCH = 2, 64, 8, 4
COMMON = {"vocab_size": 128, "bos_token_id": 0, "eos_token_id": 1}
MODELS = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=LAYERS, n_embd=HIDDEN, n_head=4, n_positions=32, use_cache=False, **COMMON)
    ),
    "bert": lambda: transformers.BertForMaskedLM(
        transformers.BertConfig(
            num_hidden_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=4, intermediate_size=256, **COMMON
        )
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            num_hidden_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=176, use_cache=False, **COMMON,
        )
    ),
}  # fmt: skip


@functools.cache
def graph(name, mode):
    ids = {"input_ids": torch.zeros(BATCH, TOKENS, dtype=torch.long)}
    optimizer = "adamw" if mode == "training" else None
    return capture(MODELS[name](), ids, name=name, mode=mode, optimizer=optimizer)


def products(g, phase):
    return sum(op.flop for op in g.ops if op.category in ("matmul", "attention") and op.phase == phase)


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("name", MODELS)
def test_layers_are_divided_and_summed_twice_each_way(name, mode):
    whole = graph(name, mode)
    split = tensor_parallel(whole, 2)
    assert_sound(split.graph)
    assert split.pairs == 2 * LAYERS
    size = 4 * BATCH * TOKENS * HIDDEN
    for phase in ("forward", "backward") if mode == "training" else ("forward",):
        sums = [op for op in collectives(split.graph, phase) if op.attributes["bytes"] == size]
        assert len(sums) == 2 * LAYERS + 1  # the embedding forward, the head's input backward
        # BERT's dense layer before the head meets a normalization and stays whole
        assert products(split.graph, phase) / products(whole, phase) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_key_heads_that_are_too_few_stay_whole_and_queries_do_not(mode):
    split = tensor_parallel(graph("llama", mode), 4)
    assert_sound(split.graph)
    assert "k_proj" in split.remarks[0]
    assert split.remarks[0].endswith("left whole: 4 does not divide 2")
    assert split.pairs == 2 * LAYERS


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("name", MODELS)
def test_a_micro_batch_has_its_part_of_the_products(name, mode):
    whole = graph(name, mode)
    part = micro_batch(whole, 2)
    assert_sound(part)
    assert products(part, "forward") == pytest.approx(products(whole, "forward") / 2)
    assert products(part, "backward") == pytest.approx(products(whole, "backward") / 2)
