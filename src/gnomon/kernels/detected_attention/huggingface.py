"""Detected attention inside a Transformers model: `wrap` gives every self-attention a detector, `unwrap` takes it away.

The model calls us through Transformers' own registry of attention functions. A hook hands the attention's input over,
which the detector reads and such functions are not given. Detectors become part of the model: its state_dict holds
them, `model.to` moves them, and `joint` trains them.

Limits: plain bidirectional or causal masks with padding; no attention weights are returned. A step of generation that
attends to cached keys stays dense, since the inputs behind those keys are gone.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnomon.kernels.detected_attention.detector import Detector
from gnomon.kernels.detected_attention.modules import DetectedAttention, Selection
from gnomon.kernels.detected_attention.select import Pool

NAME = "gnomon_detected"
_INPUT, _BEFORE = "_gnomon_input", "_gnomon_attention_before"
Maps = tuple[Tensor, Tensor, bool]  # wq [C, H D], wk [C, H D], whether they have a bias


def wrap(
    model: Any,
    retention: float = 0.1,
    rank: int | None = None,
    bits: int | None = 4,
    granularity: Literal["token", "block"] = "token",
    block: tuple[int, int] = (32, 32),
    pool: Pool = "max",
    threshold: float | None = None,
    seed: int = 0,
) -> list[DetectedAttention]:
    """Give every self-attention of a Transformers model a detector, in place, and switch it to sparse attention.

    rank: of the detectors, None for a quarter of the head size and at least 4. bits: see `Detector`. The others: see
    `Selection`. The detectors start from the layers' own projections, which is a guess: train them (`joint`).
    Returns them in order. Raises ValueError for a model whose attention cannot be wrapped, naming the reason.
    """
    selection = Selection(retention, threshold, granularity, block, pool)
    if reason := why_not(model):
        raise ValueError(f"model cannot be wrapped: {reason}")
    _register()
    wrapped, hooks = [], []
    for number, attention in enumerate(_attentions(model)):
        wq, wk, has_bias = _READERS[type(attention).__name__](attention)
        heads = int(getattr(attention, "num_attention_heads", 0) or attention.num_heads)
        size = wq.shape[1] // heads
        detector = Detector(
            wq.shape[0], heads, rank or max(4, size // 4), bits, bias=has_bias, seed=seed * 10_000 + number
        )
        scale = float(attention.scaling)
        wq_HCD, wk_HCD = (w.detach().unflatten(1, (heads, size)).transpose(0, 1) for w in (wq, wk))
        detector.start_from(wq_HCD, wk_HCD, scale)
        attention.detected = DetectedAttention(detector.to(wq.device), selection)
        hooks.append(attention.register_forward_pre_hook(_remember_input, with_kwargs=True))
        wrapped.append(attention.detected)
    setattr(model, _BEFORE, (model.config._attn_implementation, hooks))
    model.set_attn_implementation(NAME)
    return wrapped


def unwrap(model: Any) -> None:
    """Take the detectors out again and restore the attention from before. Raises ValueError when not wrapped."""
    if not hasattr(model, _BEFORE):
        raise ValueError("model is not wrapped; wrap it first")
    before, hooks = getattr(model, _BEFORE)
    for hook in hooks:
        hook.remove()
    for attention in _attentions(model):
        del attention.detected
    model.set_attn_implementation(before)
    delattr(model, _BEFORE)


def why_not(model: nn.Module) -> str | None:
    """Why the model's attention cannot be wrapped; None when it can."""
    if not hasattr(model, "set_attn_implementation"):
        return f"{type(model).__name__} is not a Transformers model; use DetectedAttention inside your own layer"
    if hasattr(model, _BEFORE):
        return "it is wrapped already; unwrap it first"
    found = list(_attentions(model))
    others = sorted({type(m).__name__ for m in model.modules() if _looks_like_attention(m)} - set(_READERS))
    if others or not found:
        known = ", ".join(sorted(_READERS))
        what = ", ".join(others) or "no attention that is known"
        return (
            f"{type(model).__name__} has {what}; known: {known}. "
            "Rotary positions, position biases and cross-attention are not visible to the detector"
        )
    return None


def _attentions(model: nn.Module) -> Iterable[Any]:
    return (module for module in model.modules() if type(module).__name__ in _READERS)


def _looks_like_attention(module: nn.Module) -> bool:
    """A module with projections of its own that is called an attention."""
    return (
        "Attention" in type(module).__name__
        and any(isinstance(m, nn.Linear) for m in module.children())
        and (hasattr(module, "query") or hasattr(module, "q_proj") or hasattr(module, "q") or hasattr(module, "q_lin"))
    )


def _two_maps(q: str, k: str) -> Callable[[Any], Maps]:
    def read(attention: Any) -> Maps:
        query, key = getattr(attention, q), getattr(attention, k)
        return query.weight.T, key.weight.T, query.bias is not None

    return read


def _one_map(attention: Any) -> Maps:
    wq, wk, _ = attention.c_attn.weight.split(attention.split_size, dim=1)
    return wq, wk, True


_READERS: dict[str, Callable[[Any], Maps]] = {
    **dict.fromkeys(
        (
            "BertSelfAttention",
            "RobertaSelfAttention",
            "XLMRobertaSelfAttention",
            "CamembertSelfAttention",
            "ElectraSelfAttention",
        ),
        _two_maps("query", "key"),
    ),
    "ViTAttention": _two_maps("q_proj", "k_proj"),
    "GPT2Attention": _one_map,
}


def _remember_input(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    object.__setattr__(attention, _INPUT, args[0] if args else kwargs["hidden_states"])


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What Transformers calls. query, key, value: [B, H, N, D]; attention_mask: bool [B, N] from `_mask`."""
    x = getattr(module, _INPUT)
    object.__setattr__(module, _INPUT, None)  # else it would live until the next call
    if unknown := [name for name in ("position_bias", "softcap", "sliding_window") if others.get(name) is not None]:
        raise ValueError(f"{unknown[0]} is not visible to the detector; unwrap the model")
    is_causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    if key.shape[2] != x.shape[1]:
        seen = None if attention_mask is None else attention_mask[:, None, None, :]
        if is_causal and query.shape[2] > 1:
            lower = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)
            lower = lower.tril(key.shape[2] - query.shape[2])
            seen = lower if seen is None else seen & lower
        out = functional.scaled_dot_product_attention(query, key, value, seen, dropout, scale=scaling)
    else:
        out = module.detected(x, query, key, value, is_causal, attention_mask, scaling, dropout)
    return out.transpose(1, 2).contiguous(), None


def _mask(
    attention_mask: Tensor | None = None, mask_function: Any = None, kv_length: int = 0, **_: Any
) -> Tensor | None:
    """The padding of a batch, bool [B, M], or None; causality travels on its own."""
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

    if mask_function not in (None, bidirectional_mask_function, causal_mask_function):
        raise ValueError("attention_mask must be padding, causal or not; sliding windows, chunks and packed sequences "
                         "are not supported by detected attention: unwrap the model")  # fmt: skip
    if attention_mask is None or bool(attention_mask[:, -kv_length:].all()):
        return None
    return attention_mask[:, -kv_length:].bool()


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _mask)
