"""One step of text generation with GPT-2 (Radford et al. 2019): one new token per sequence, keys and values cached.

Axes: N layers, B sequences, H heads, P cached tokens, D head size, V vocabulary.
"""

from typing import Any

from torch import Tensor, nn


class GenerationStep(nn.Module):
    """The language model behind a cache that is handed in, so that one call is one step at a known position."""

    def __init__(self, config: Any) -> None:
        from transformers import GPT2LMHeadModel

        super().__init__()
        self.gpt2 = GPT2LMHeadModel(config)

    def forward(self, input_ids: Tensor, past_keys: Tensor, past_values: Tensor) -> Tensor:
        """input_ids: [B, 1] int64; past_keys, past_values: [N, B, H, P, D]. Returns logits [B, 1, V]."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys_BHPD, values_BHPD) in enumerate(zip(past_keys, past_values, strict=True)):
            cache.update(keys_BHPD, values_BHPD, layer)
        logits: Tensor = self.gpt2(input_ids=input_ids, past_key_values=cache, use_cache=True).logits
        return logits


def build(**arguments: Any) -> GenerationStep:
    """The model with random weights. arguments: values of transformers' GPT2Config."""
    from transformers import GPT2Config

    return GenerationStep(GPT2Config(**arguments))
