"""Masks of trained models, from files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnomon.core.errors import UsageError


def load(path: Path) -> NDArray[np.bool_]:
    """A mask [h, n, n] from a .npy file, or a bool tensor from a .pt or .pth file (loaded as data only).

    Raises UsageError when the file cannot be read or holds something else. [1, h, n, n] is taken as [h, n, n].
    """
    try:
        if path.suffix in (".pt", ".pth"):
            import torch

            values = torch.load(path, weights_only=True, map_location="cpu").numpy()
        else:
            values = np.load(path, allow_pickle=False)
    except Exception as error:  # torch and NumPy raise whatever their readers meet
        raise UsageError(f"{path}: wanted an array of booleans, .npy or .pt; it cannot be read: {error}") from error
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    is_mask = values.dtype == bool or (values.dtype.kind in "iu" and bool(((values == 0) | (values == 1)).all()))
    if not is_mask or values.ndim != 3 or values.shape[1] != values.shape[2] or 0 in values.shape:
        raise UsageError(
            f"{path}: wanted booleans [heads, n, n], true where the query (row) keeps the key (column); got "
            f"{values.dtype} {list(values.shape)}"
        )
    return np.ascontiguousarray(values.astype(bool))
