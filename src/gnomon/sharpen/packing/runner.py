"""A list of uneven sentences through a model in batches of similar length: length-aware scheduling for inference."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gnomon.sharpen.packing.encoders import TopK, pack_encoders

# MiniLM on one core: from about 1,500 tokens on the allocator gives the feed-forward network's rows back to the system
# after every layer, 30,000 to 60,000 page faults for 5,000 tokens; 1,024 had none
_TOKENS = 1024

Sentence = Tensor | Sequence[int] | Mapping[str, Tensor]


def schedule(lengths: Sequence[int], token_budget: int, most: int | None = None) -> list[list[int]]:
    """Numbers of the sentences, longest first, cut into batches of at most `token_budget` tokens and `most` sentences.

    A sentence that is longer than the budget is a batch of its own. Sentences without tokens are left out. Longest
    first, so that the batch that needs the most memory comes first. Raises ValueError naming the argument.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget must be at least 1 token; got {token_budget}")
    if most is not None and most < 1:
        raise ValueError(f"most must be at least 1 sentence; got {most}")
    batches: list[list[int]] = []
    room = 0
    for i in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: (-lengths[i], i)):
        if not batches or lengths[i] > room or (most is not None and len(batches[-1]) >= most):
            batches.append([])
            room = token_budget
        batches[-1].append(i)
        room -= lengths[i]
    return batches


class PackedRunner:
    """Calls a model on lists of uneven sentences and gives the outputs back in their order.

    model: what takes input_ids and attention_mask [B, L] and returns a tensor or a ModelOutput whose first tensor is
    [B, L, ...] (cut to each sentence) or [B, ...] (one per sentence). Its encoders are rewritten in place to compute no
    padding (`pack_encoders`), unless they are already. token_budget: tokens of a batch, which bounds the memory.
    topk: as for `pack_encoders`. Raises ValueError when the model has no encoder that can be packed.
    """

    def __init__(self, model: nn.Module, *, token_budget: int = _TOKENS, topk: TopK | None = None) -> None:
        schedule([], token_budget)
        if not any(hasattr(module.forward, "packs") for module in model.modules()):
            pack_encoders(model, topk)
        elif topk is not None:
            raise ValueError("topk must be given where the encoders are packed; this model's are packed already")
        self.model, self.token_budget = model.eval(), token_budget

    @torch.inference_mode()
    def __call__(self, sentences: Sequence[Sentence]) -> list[Tensor]:
        """sentences: token numbers of each, [n] int64 or a list, or a mapping with 'input_ids' and further inputs [n].

        Returns one tensor for each sentence. Raises ValueError for a sentence without tokens.
        """
        inputs = [_inputs(one, i) for i, one in enumerate(sentences)]
        lengths = [len(one["input_ids"]) for one in inputs]
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        outputs: list[Tensor | None] = [None] * len(inputs)
        for numbers in schedule(lengths, self.token_budget):
            batch = {
                name: nn.utils.rnn.pad_sequence([inputs[i][name] for i in numbers], batch_first=True).to(device)
                for name in inputs[numbers[0]]
            }
            longest = torch.tensor([lengths[i] for i in numbers], device=device)
            mask = torch.arange(lengths[numbers[0]], device=device) < longest[:, None]
            found = _first(self.model(**batch, attention_mask=mask.long()))
            is_by_token = found.dim() > 2 and found.shape[1] == mask.shape[1]
            for row, i in enumerate(numbers):
                outputs[i] = found[row, : lengths[i]] if is_by_token else found[row]
        return [one for one in outputs if one is not None]


def _inputs(sentence: Sentence, number: int) -> dict[str, Tensor]:
    given = sentence if isinstance(sentence, Mapping) else {"input_ids": sentence}
    found = {name: torch.as_tensor(value) for name, value in given.items() if name != "attention_mask"}
    ids = found.get("input_ids")
    if ids is None or ids.dim() != 1 or not len(ids):
        got = "none" if ids is None else f"shape {list(ids.shape)}"
        raise ValueError(f"sentences[{number}] must hold input_ids of at least one token, [n]; got {got}")
    return found


def _first(output: Any) -> Tensor:
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found
