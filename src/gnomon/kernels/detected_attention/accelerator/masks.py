"""Masks for the simulator: checked, full, or a stand-in for a trained model's."""

import numpy as np
from numpy.typing import NDArray

from gnomon.kernels.detected_attention.accelerator.design import Layer

_SMOOTH = 0.9  # correlation of neighbouring tokens in the stand-in
_RANK = 16


def checked(mask: NDArray[np.bool_], layer: Layer) -> NDArray[np.bool_]:
    """The mask, if it fits the layer. Raises ValueError when it does not, or when a query keeps no key."""
    wanted = (layer.heads, layer.tokens, layer.tokens)
    if mask.dtype != bool or mask.shape != wanted:
        raise ValueError(f"mask must be bool {list(wanted)} (heads, n, n); got {mask.dtype} {list(mask.shape)}")
    if not mask.any(-1).all():
        head, row = (int(i) for i in np.argwhere(~mask.any(-1))[0])
        raise ValueError(f"mask leaves query {row} of head {head} without a key; every query must keep one")
    return mask


def full(layer: Layer, is_causal: bool = False) -> NDArray[np.bool_]:
    """Every key, or those up to the query."""
    every = np.ones((layer.tokens, layer.tokens), dtype=bool)
    return np.repeat((np.tril(every) if is_causal else every)[None], layer.heads, axis=0)


def stand_in(layer: Layer, seed: int = 0, is_causal: bool = False) -> NDArray[np.bool_]:
    """The top keys of random queries and keys in which neighbouring tokens are alike: not a trained model's mask.

    Row-balanced: every query keeps layer.kept keys, or all it may see when those are fewer.
    """
    random = np.random.default_rng(seed)
    shape = (2, layer.heads, layer.tokens, _RANK)
    noise = random.standard_normal(shape)
    for i in range(1, layer.tokens):
        noise[:, :, i] = _SMOOTH * noise[:, :, i - 1] + np.sqrt(1 - _SMOOTH**2) * noise[:, :, i]
    mask = np.zeros((layer.heads, layer.tokens, layer.tokens), dtype=bool)
    for head, (q, k) in enumerate(zip(*noise, strict=True)):  # one at a time: scores take eight times a mask's memory
        scores = q @ k.T
        if is_causal:
            scores[~np.tri(layer.tokens, dtype=bool)] = -np.inf
        order = np.argsort(-scores, axis=-1, kind="stable")[:, : layer.kept]
        np.put_along_axis(mask[head], order, np.take_along_axis(scores, order, -1) > -np.inf, axis=-1)
    return mask
