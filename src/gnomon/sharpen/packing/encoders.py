"""Text encoders rewritten to compute the tokens of a padded batch and not its padding.

An encoder keeps its arguments and its outputs: where `attention_mask` has zeros, its tokens are taken out, all layers
run on [T, D], attention stays within each text, and hidden states go back to [B, L, D], zeros where padding was.
Whatever stands behind the encoder (pooling, a head) sees what it saw before.

Two kinds are known. Models of transformers whose attention is exchangeable and has no positions of its own (_FAMILIES)
run as [1, T] with explicit positions and cu_seqlens, which transformers hands down to the attention function. Any other
module takes part by a method `forward_packed(input_ids [T], position_ids [T], attention) -> [T, D]` beside its
`forward(input_ids, attention_mask)`, where attention(q, k, v) takes [T, H, E] each; the zoo's encoder has one.

Axes: B texts, L padded length, T tokens of all texts, D hidden size, H heads, E head size.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gnomon.kernels.packed_attention import PackedBatch, pack, packed_attention, pad
from gnomon.kernels.quantized_topk_attention import quantized_topk_attention_packed

_IMPLEMENTATION = "gnomon_packed"  # the name of our attention function within transformers
_FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert")
_WORKSPACE = "gnomon_attention"  # the argument that carries the attention of one packed call


class TopK(NamedTuple):
    """Each token attends to the `keys` keys with the highest `bits`-bit scores instead of to all."""

    keys: int = 30
    bits: int = 4


def why_not(model: nn.Module) -> str | None:
    """Why no encoder of the model can run packed; None when one can."""
    found = list(_encoders(model))
    if not found:
        if any(_is_pretrained(module) for module in model.modules()):
            kind = next(_family(module) for module in model.modules() if _is_pretrained(module))
            return f"no packed execution is known for models of type {kind!r}; known: {', '.join(_FAMILIES)}"
        return "the model has no text encoder that can run without padding (see forward_packed in docs/packing.md)"
    for one in found:
        config = getattr(one, "config", None)
        if config is not None and getattr(config, "is_decoder", False):
            return "the model is a decoder, whose cache is laid out by padded rows"
        if config is not None and getattr(config, "position_embedding_type", "absolute") not in ("absolute", None):
            return f"positions inside of attention ({config.position_embedding_type}) are not known to packed attention"
    return None


def pack_encoders(model: nn.Module, topk: TopK | None = None) -> int:
    """Rewrite every encoder of the model in place; returns how many. Raises ValueError when `why_not` has a reason.

    topk: attend to the best keys alone, see `TopK`; None is exact. A call runs as before when it trains, has no padding
    mask, asks for the states of every layer or for attention weights, or (without topk) has no padding.
    """
    reason = why_not(model)
    if reason is not None:
        raise ValueError(f"model cannot run packed: {reason}")
    found = list(_encoders(model))
    for encoder in found:
        forward = encoder.forward
        if hasattr(forward, "packs"):
            raise ValueError("model runs packed already")
        run = _own(encoder, forward, topk) if hasattr(encoder, "forward_packed") else _theirs(encoder, forward, topk)
        run = functools.wraps(forward)(run)
        run.packs = True  # type: ignore[attr-defined]
        encoder.forward = run
    return len(found)


def _encoders(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if hasattr(module, "forward_packed"):
            yield module
        elif _is_pretrained(module) and module.base_model is module and _family(module) in _FAMILIES:
            yield module


def _family(model: Any) -> str:
    """'bert', 'roberta' ... of a model of transformers."""
    return str(model.config.model_type)


def _is_pretrained(module: nn.Module) -> bool:
    """A model of transformers, told without importing that package."""
    return any(
        one.__module__.startswith("transformers.") and one.__name__ == "PreTrainedModel" for one in type(module).__mro__
    )


def _attention(batch: PackedBatch, topk: TopK | None) -> Callable[..., Tensor]:
    """attention(q, k, v, scale=None) within the batch's texts; [T, H, E] each."""
    cu_seqlens, longest = batch.cu_seqlens, batch.max_seqlen

    def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        if topk is not None and longest > topk.keys:  # with fewer keys all are kept
            return quantized_topk_attention_packed(q, k, v, cu_seqlens, topk.keys, topk.bits, scale=scale)
        return packed_attention(q, k, v, cu_seqlens, longest, scale=scale)

    return attend


def _is_padding_mask(mask: Any, ids: Any, topk: TopK | None) -> bool:
    """Is there something to leave out, or a choice of keys to make?"""
    if not isinstance(mask, Tensor) or not isinstance(ids, Tensor) or mask.dim() != 2 or mask.shape != ids.shape:
        return False
    return bool(mask.any()) and (topk is not None or not bool(mask.all()))


def _own(encoder: Any, forward: Callable[..., Tensor], topk: TopK | None) -> Callable[..., Tensor]:
    """For modules with `forward_packed`."""

    def run(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if encoder.training or not _is_padding_mask(attention_mask, input_ids, topk):
            return forward(input_ids, attention_mask)
        batch = pack(input_ids, attention_mask)
        assert batch.places is not None
        positions = batch.places % input_ids.shape[1]
        return pad(batch.of(encoder.forward_packed(batch.tokens, positions, _attention(batch, topk))))

    return run


_PER_TOKEN = ("input_ids", "token_type_ids", "position_ids")


def _theirs(encoder: Any, forward: Callable[..., Any], topk: TopK | None) -> Callable[..., Any]:
    """For models of transformers."""
    _register()
    encoder.set_attn_implementation(_IMPLEMENTATION)
    signature = inspect.signature(forward)

    def run(*args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(*args, **kwargs).arguments)
        given |= given.pop("kwargs", {})
        as_tuple = given.pop("return_dict", None) is False
        mask, ids = given.pop("attention_mask", None), given.get("input_ids")
        others = [
            name for name, value in given.items() if name not in _PER_TOKEN and value is not None and value is not False
        ]
        if encoder.training or others or not _is_padding_mask(mask, ids, topk):
            return forward(*args, **kwargs)
        assert isinstance(ids, Tensor)
        batch = pack(ids, mask)
        assert batch.places is not None
        positions = given.pop("position_ids", None)
        if positions is None:
            positions = _positions(encoder, ids)
        packed = {
            "input_ids": batch.tokens[None],
            "position_ids": positions.expand(ids.shape).flatten()[batch.places][None],
        }
        if given.get("token_type_ids") is not None:
            packed["token_type_ids"] = given["token_type_ids"].flatten()[batch.places][None]
        found = forward(**packed, attention_mask=None, return_dict=True, **{_WORKSPACE: _attention(batch, topk)})
        found["last_hidden_state"] = hidden = pad(batch.of(found.last_hidden_state[0]))
        if found.get("pooler_output") is not None:
            found["pooler_output"] = _pooled(encoder, hidden)
        return found.to_tuple() if as_tuple else found

    return run


def _positions(encoder: Any, ids: Tensor) -> Tensor:
    """[B, L], the positions that the model gives these tokens: RoBERTa's begin behind the padding's number."""
    make = getattr(encoder.embeddings, "create_position_ids_from_input_ids", None)
    if make is not None:
        positions: Tensor = make(ids, encoder.embeddings.padding_idx)
        return positions
    return torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)


def _pooled(encoder: Any, hidden: Tensor) -> Tensor:
    """What the model's pooler makes of the first token of each text."""
    pooled: Tensor
    if isinstance(encoder.pooler, nn.Linear):  # ALBERT
        pooled = encoder.pooler_activation(encoder.pooler(hidden[:, 0]))
    else:
        pooled = encoder.pooler(hidden)
    return pooled


@functools.cache
def _register() -> None:
    """Make our attention known to transformers: packed where a call says so, else torch's own under the same mask."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        packed = kwargs.pop(_WORKSPACE, None)
        if packed is None:
            found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
            return found
        rows = (x[0].transpose(0, 1) for x in (query, key, value))  # [1, H, T, E] to [T, H, E]
        return packed(*rows, kwargs.get("scaling"))[None], None

    AttentionInterface.register(_IMPLEMENTATION, attend)
    AttentionMaskInterface.register(_IMPLEMENTATION, sdpa_mask)
