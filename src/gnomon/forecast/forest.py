"""Boosted regression trees as plain arrays: evaluated with NumPy alone, stored without pickle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.forecast.kernels import Array


@dataclass(frozen=True, slots=True)
class Forest:
    """`roots` [T] point into the nodes [N]. A row goes left where features[feature] <= threshold.

    A leaf points to itself. value: what a leaf adds, 0 inside. depth: steps after which every row is at a leaf.
    """

    roots: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    value: Array
    depth: int

    def predict(self, features: Array) -> Array:
        """Sum of the trees for features [rows, F], as [rows]."""
        total = np.zeros(len(features))
        for start in range(0, len(features), _ROWS):
            total[start : start + _ROWS] = self._predict(features[start : start + _ROWS])
        return total

    def _predict(self, features: Array) -> Array:
        rows = np.arange(len(features))[:, None]
        node = np.broadcast_to(self.roots, (len(features), len(self.roots)))
        for _ in range(self.depth):
            goes_left = features[rows, self.feature[node]] <= self.threshold[node]
            node = np.where(goes_left, self.left[node], self.right[node])
        return self.value[node].sum(axis=1, dtype=float)

    def arrays(self) -> dict[str, Array]:
        """What `from_arrays` takes, small enough to be stored."""
        return {
            "roots": self.roots.astype(np.int32),
            "feature": self.feature.astype(np.int8),
            "threshold": self.threshold.astype(np.float32),
            "left": self.left.astype(np.int32),
            "right": self.right.astype(np.int32),
            "value": self.value.astype(np.float32),
            "depth": np.array(self.depth),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> "Forest":
        whole = {name: np.asarray(arrays[name]) for name in ("roots", "feature", "left", "right")}
        threshold, value = (np.asarray(arrays[name], dtype=float) for name in ("threshold", "value"))
        return cls(
            **{name: values.astype(np.int64) for name, values in whole.items()},
            threshold=threshold, value=value, depth=int(arrays["depth"]),
        )  # fmt: skip


_ROWS = 20_000  # rows at a time: bounds the memory of rows x trees


def from_lightgbm(dump: Mapping[str, Any]) -> Forest:
    """The forest of `Booster.dump_model()`."""
    roots: list[int] = []
    nodes: list[tuple[int, float, int, int, float]] = []
    deepest = 0

    def add(tree: Mapping[str, Any], depth: int) -> int:
        nonlocal deepest
        deepest = max(deepest, depth)
        at = len(nodes)
        nodes.append((0, 0.0, at, at, float(tree.get("leaf_value", 0.0))))
        if "split_feature" in tree:
            left, right = add(tree["left_child"], depth + 1), add(tree["right_child"], depth + 1)
            nodes[at] = (int(tree["split_feature"]), float(np.float32(tree["threshold"])), left, right, 0.0)
        return at

    for info in dump["tree_info"]:
        roots.append(add(info["tree_structure"], 0))
    feature, threshold, left, right, value = (np.array(column) for column in zip(*nodes, strict=True))
    return Forest(np.array(roots), feature, threshold, left, right, value.astype(float), deepest)
