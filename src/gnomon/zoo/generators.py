"""Data made from a seed, to be named in a dataset's `splits`: no file, the same each time."""

import numpy as np
from numpy.typing import NDArray


def normal(rows: int, features: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Standard normal numbers: {'input': [rows, features]}."""
    return {"input": np.random.default_rng(seed).standard_normal((rows, features), dtype=np.float32)}


def clusters(rows: int, features: int, classes: int, seed: int, spread: float = 0.5) -> dict[str, NDArray[np.generic]]:
    """Points around one centre for each class: {'input': [rows, features], 'target': [rows]}."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, features), dtype=np.float32)
    target = rng.integers(0, classes, rows)
    noise = rng.standard_normal((rows, features), dtype=np.float32)
    return {"input": centres[target] + np.float32(spread) * noise, "target": target}
