"""Window attention in models of transformers: their attention interface pointed at neighborhood attention.

Text: each token attends to the window of its nearest tokens (of its past, in a decoder), within its own text, whatever
padding a batch has. Pictures: each patch attends to a square of patches on its grid and to the class token and its
like; these attend to everything. Attention between different sequences stays as it is.
Axes: B batch, H query heads, G key/value heads, L tokens, D head size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from gnomon.core.errors import NotRunnable
from gnomon.kernels.neighborhood_attention import Problem, attention, na1d, na2d

Note = Callable[[bool], None]  # told, at each call of an attention, whether a window hid anything


@dataclass(frozen=True, slots=True)
class Window:
    """tokens: width on text. side: of the square on a grid of patches. stride, dilation: as in neighborhood attention.

    On a sequence or grid that is shorter, a window is cut to what fits.
    """

    tokens: int
    side: int
    stride: int = 1
    dilation: int = 1

    @property
    def name(self) -> str:
        """Under which transformers knows the attention."""
        return f"gnomon_window_{self.tokens}_{self.side}_{self.stride}_{self.dilation}"

    def on(self, space: tuple[int, ...], is_causal: bool) -> Problem:
        """The problem on a grid, each axis with the largest window up to the wanted one that fits."""
        wanted = self.tokens if len(space) == 1 else self.side
        dilation = tuple(min(self.dilation, n) for n in space)
        size = tuple(min(wanted, n // d) for n, d in zip(space, dilation, strict=True))
        stride = tuple(min(self.stride, w) for w in size)
        return Problem(space, size, stride, dilation, (is_causal,) * len(space))


def why_not(model: nn.Module) -> str | None:
    """Why the attention of the model cannot be exchanged; None when nothing speaks against it before it runs."""
    try:
        from transformers import PreTrainedModel
    except ImportError:
        return "it changes models of transformers, which is not installed: pip install 'gnomon[models]'"
    found = [one for one in model.modules() if isinstance(one, PreTrainedModel)]
    if not found:
        return "the model is not one of transformers"
    if not any(getattr(one, "_supports_attention_backend", False) for one in found):
        return f"{type(found[0]).__name__} does not take its attention from transformers' attention interface"
    for one in found:
        rates = [getattr(one.config, name, 0.0) for name in ("attention_probs_dropout_prob", "attention_dropout")]
        if one.training and any(rates):
            return f"attention weights are dropped in training ({max(rates):g}) but never in memory here; set it to 0"
    return None


def use_windows(model: nn.Module, window: Window, trial: Callable[[], object]) -> None:
    """Exchange every self attention of the model. trial: runs the model once, to see what the windows do.

    Raises NotRunnable when no attention goes through the interface, or when no window would hide a key.
    """
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.masking_utils import sdpa_mask

    AttentionMaskInterface.register(window.name, sdpa_mask)
    hidden: list[bool] = []
    AttentionInterface.register(window.name, _attention(window, hidden.append))
    for one in model.modules():
        if isinstance(one, PreTrainedModel) and getattr(one, "_supports_attention_backend", False):
            one.set_attn_implementation(window.name)
    trial()
    if not hidden:
        raise NotRunnable("no attention of the model went through transformers' attention interface in a trial run")
    if not any(hidden):
        raise NotRunnable(
            f"windows of {window.tokens} tokens, or {window.side} x {window.side} patches, see all of the example batch"
        )
    AttentionInterface.register(window.name, _attention(window, None))  # a compiler should not see the notes


def _attention(window: Window, note: Note | None) -> Callable[..., tuple[Tensor, None]]:
    """A function of transformers' attention interface. Tensors come as [B, H or G, L, D] and leave as [B, L, H, D]."""

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        for name in ("position_bias", "softcap", "s_aux"):
            if options.get(name) is not None:
                raise NotRunnable(f"{type(module).__name__} needs {name}, which window attention does not have")
        if dropout:
            raise NotRunnable(f"{type(module).__name__} drops attention weights ({dropout:g}); set its dropout to 0")
        causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        q_BLHD, k_BLGD, v_BLGD = (x.transpose(1, 2) for x in (query, key, value))
        tokens, others = q_BLHD.shape[1], k_BLGD.shape[1]
        if tokens != others:
            if not causal or tokens > others:  # another text altogether
                return _dense(q_BLHD, k_BLGD, v_BLGD, attention_mask, scaling), None
            low = _first_key(window, tokens, others)
            if note is not None:
                note(low > 0 or not bool(_last_rows(window, tokens, others, low).all()))
            return _to_cached(window, q_BLHD, k_BLGD, v_BLGD, attention_mask, scaling, low), None
        grid = _grid(module, tokens)
        if grid is not None and attention_mask is None and not causal:
            problem = window.on(grid, False)
            out = _on_patches(problem, q_BLHD, k_BLGD, v_BLGD, scaling)
        else:
            problem = window.on((tokens,), causal)
            out = _on_texts(window, q_BLHD, k_BLGD, v_BLGD, attention_mask, scaling, causal)
        if note is not None:
            note(problem.kernel_size != problem.space)
        return out, None

    return attend


def _on_patches(problem: Problem, q_BLHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor, scale: float | None) -> Tensor:
    """The class token and its like come first: all patches see them, and they see all."""
    first = q_BLHD.shape[1] - problem.tokens
    q, k, v = (x[:, first:].unflatten(1, problem.space) for x in (q_BLHD, k_BLGD, v_BLGD))
    keys, values = (x[:, :first] if first else None for x in (k_BLGD, v_BLGD))
    patches = na2d(
        q, k, v, problem.kernel_size, problem.stride, problem.dilation,
        scale=scale, additional_keys=keys, additional_values=values,
    )  # fmt: skip
    assert isinstance(patches, Tensor)  # no logsumexp was asked for
    if not first:
        return patches.flatten(1, 2)
    leading = attention(q_BLHD[:, :first], k_BLGD, v_BLGD, scale=scale)
    assert isinstance(leading, Tensor)
    return torch.cat([leading, patches.flatten(1, 2)], 1)


def _on_texts(
    window: Window,
    q_BLHD: Tensor,
    k_BLGD: Tensor,
    v_BLGD: Tensor,
    mask: Tensor | None,
    scale: float | None,
    causal: bool,
) -> Tensor:
    """Texts of one place and length together, each on its own tokens; what is padding comes out as 0."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        problem = window.on((q.shape[1],), causal)
        out = na1d(q, k, v, problem.kernel_size, problem.stride, problem.dilation, problem.is_causal, scale=scale)
        assert isinstance(out, Tensor)
        return out

    if mask is None:
        return run(q_BLHD, k_BLGD, v_BLGD)
    places = _places(mask, causal)
    places = places * (q_BLHD.shape[0] // len(places))  # one mask may serve the whole batch
    if len(set(places)) == 1 and places[0] == (0, q_BLHD.shape[1]):
        return run(q_BLHD, k_BLGD, v_BLGD)
    out = torch.zeros_like(q_BLHD)
    for start, end in sorted(set(places)):
        rows = torch.tensor([row for row, place in enumerate(places) if place == (start, end)], device=out.device)
        out[rows, start:end] = run(*(x[rows, start:end] for x in (q_BLHD, k_BLGD, v_BLGD)))
    return out


def _places(mask: Tensor, causal: bool) -> list[tuple[int, int]]:
    """Where each row's text starts and ends. mask: [B, 1, L, L], True or near 0 where a query sees a key.

    Raises NotRunnable for a mask that says more than what is padding, such as a bias or borders of packed texts.
    """
    known = _KNOWN_PLACES.get(mask)  # all layers of a model share one mask
    if known is None:
        known = _KNOWN_PLACES[mask] = _read_places(mask, causal)
    return known


_KNOWN_PLACES = WeakTensorKeyDictionary()


def _read_places(mask: Tensor, causal: bool) -> list[tuple[int, int]]:
    sees = mask
    if mask.dtype != torch.bool:
        sees = mask > torch.finfo(mask.dtype).min / 2
        if mask.masked_fill(~sees, 0).any():
            raise NotRunnable("the attention mask adds a bias to the scores; windows know padding only")
    if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[2] != mask.shape[3]:
        raise NotRunnable(f"the attention mask is {list(mask.shape)}; windows know padding, [batch, 1, tokens, tokens]")
    is_text_BL = sees.any(-2)[:, 0]
    wanted = is_text_BL[:, None, :].expand_as(sees[:, 0])
    if causal:
        wanted = wanted.tril()
    if ((sees[:, 0] != wanted) & is_text_BL[:, :, None]).any():  # what padding sees does not matter
        raise NotRunnable("the attention mask hides more than padding; windows know padding only")
    places = []
    for row in is_text_BL.cpu():
        tokens = row.nonzero()[:, 0].tolist()
        start, end = (tokens[0], tokens[-1] + 1) if tokens else (0, 0)
        if len(tokens) != end - start:
            raise NotRunnable("the attention mask hides tokens within a text; windows know padding at its ends only")
        places.append((start, end))
    return places


def _to_cached(
    window: Window, q_BLHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor, mask: Tensor | None, scale: float | None, low: int
) -> Tensor:
    """The last tokens of a sequence whose keys are cached. low: the first key that any of them sees."""
    seen = _last_rows(window, q_BLHD.shape[1], k_BLGD.shape[1], low).to(q_BLHD.device)
    if mask is not None:
        mask = mask[..., low:]
        mask = mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, torch.finfo(mask.dtype).min)
    elif not seen.all():
        mask = seen
    return _dense(q_BLHD, k_BLGD[:, low:], v_BLGD[:, low:], mask, scale)


@lru_cache(maxsize=64)
def _first_key(window: Window, tokens: int, others: int) -> int:
    """The first of `others` keys that any of the last `tokens` queries sees."""
    axis = window.on((others,), True).axes[0]
    query = np.arange(others)[-tokens:]
    return int((axis.windows()[0][-tokens:] * axis.dilation + query % axis.dilation).min())


@lru_cache(maxsize=64)
def _last_rows(window: Window, tokens: int, others: int, low: int) -> Tensor:
    """[tokens, others - low]: do the last queries see the keys from `low` on?"""
    axis = window.on((others,), True).axes[0]
    start, end = (torch.from_numpy(bound[-tokens:])[:, None] for bound in axis.windows())
    query, key = torch.arange(others - tokens, others)[:, None], torch.arange(low, others)
    place = key // axis.dilation
    return (query % axis.dilation == key % axis.dilation) & (start <= place) & (place < end)


def _dense(q_BLHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    repeats = q_BLHD.shape[2] // k_BLGD.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q_BLHD, *(x.repeat_interleave(repeats, 2) for x in (k_BLGD, v_BLGD))))
    out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.transpose(1, 2).contiguous()


def _grid(module: nn.Module, tokens: int) -> tuple[int, int] | None:
    """Rows and columns of patches, when so many tokens are a picture of the size in the model's configuration."""
    config = getattr(module, "config", None)
    image, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if image is None or patch is None:
        return None
    rows, columns = (i // p for i, p in zip(_pair(image), _pair(patch), strict=True))
    return (rows, columns) if 0 <= tokens - rows * columns <= _MOST_LEADING else None


_MOST_LEADING = 16  # class, distillation and register tokens


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
