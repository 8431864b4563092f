"""NeuSight's design, written anew: S. Lee, A. Phanishayee, D. Mahajan, "Forecasting GPU Performance for Deep Learning
Training and Inference", ASPLOS 2025, doi 10.1145/3669940.3707265.

A kernel is cut into tiles that run in waves over the units; a network tells, from four ratios per unit, which share of
the roofline one wave reaches. Kept: tiles looked up at the nearest measured kernel, waves, the four logarithms, eight
layers, the symmetric relative loss, AdamW, the epoch of best validation, one network per kind.

What differs. Utilization is bounded: a' = g sigmoid(o1), the only a' for which g - a'/w stays above 0 at one wave too.
Our kernels do not carry the [B, H] of an elementwise operator nor its name: its tiles are looked up by elements and
operands, its blocks are elements over tile. GB is 1e9. Rows are those that outlast the host, with its launch taken off,
as for all baselines (the paper keeps big sizes only). Training is reduced for one core, see `NeuSight.training`: fewer
rows and epochs, larger batches, one learning rate that rises and falls, features brought to mean 0 and scale 1, and
layers of 128 instead of 512: in a third of the processor time they came to a lower validation error (linear 0.14
against 0.19, softmax 0.10 against 0.19, one GPU left out). `Training(width=512, ...)` is the paper's.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gnomon.core.errors import UsageError
from gnomon.devices.device import Device
from gnomon.forecast import gpu
from gnomon.forecast.baselines import network
from gnomon.forecast.baselines.fitted import Arrays, FittedBaseline, Training, spread_evenly
from gnomon.forecast.kernels import Array, Kernels
from gnomon.forecast.pack.samples import Samples
from gnomon.forecast.price import Price
from gnomon.forecast.work import Work

if TYPE_CHECKING:
    from torch import Tensor

TILES = ("tile_a", "tile_b")  # columns of a pack that `learn` needs: a tiles the columns of a product, b its rows
_ROW_FLOP = {"softmax": 5.0, "normalization": 6.0}  # per element, NeuSight's count
# priced by bandwidth alone
_MEMORY_OPERATORS = ("where", "native_dropout", "native_dropout_backward", "embedding_dense_backward", "masked_fill")
_CHUNK = 256
_LEAST_UTILIZATION = 1e-3


class Cut(NamedTuple):
    """Kernels cut into tiles. waves: over all units; ideal_s: the waves at the roofline; features [kernels, 4]."""

    waves: Array
    ideal_s: Array
    features: Array


class NeuSight(FittedBaseline):
    """t = w S tile_flop / (R u), u = g - a'/w from the network, R = min(P, intensity W), w = ceil(tiles / S)."""

    name = "neusight-1"

    def prices(self, works: Sequence[Work], device: Device) -> list[Price]:
        moves = [work.category == "copy" or work.operator in _MEMORY_OPERATORS for work in works]
        asked = [replace(work, category="gather") if m else work for work, m in zip(works, moves, strict=True)]
        return super().prices(asked, device)

    @classmethod
    def learn(cls, members: Sequence[Samples], training: Training) -> Arrays:
        """Raises UsageError when the samples were read without their tiles."""
        for one in members:
            if missing := [name for name in TILES if name not in one.kernels.sizes]:
                raise UsageError(f"{one.device.name}: {one.what}: NeuSight needs {', '.join(missing)} of each kernel; "
                                 "read the pack with read_kernels(..., more=neusight.TILES)")  # fmt: skip
        rows = spread_evenly(members, training.rows, training.seed)
        cuts = [cut(one.kernels, one.device, own_tiles(one.kernels)) for one in rows]
        givens = np.concatenate([np.stack([c.waves, c.ideal_s], axis=1) for c in cuts])
        seconds = np.concatenate([one.seconds for one in rows])
        learned = network.train(
            np.concatenate([c.features for c in cuts]), givens, seconds, 3, _seconds, symmetric_error, training
        )
        keys = np.concatenate([_keys(one.kernels, one.device) for one in members])
        tiles = np.concatenate([own_tiles(one.kernels) for one in members])
        known = np.isfinite(tiles).all(axis=1)
        return {**learned, "keys": keys[known], "tiles": tiles[known]}

    def learned_seconds(self, learned: Arrays, kernels: Kernels, device: Device, physics: gpu.Physics) -> Array:
        if kernels.kind in _ROW_FLOP:
            tiles = own_tiles(kernels)
        else:
            tiles = learned["tiles"][nearest(learned["keys"], _keys(kernels, device))]
        found = cut(kernels, device, tiles)
        return network.apply(learned, found.features, np.stack([found.waves, found.ideal_s], axis=1), _seconds)


def cut(kernels: Kernels, device: Device, tiles: Array) -> Cut:
    """Kernels on a device in tiles [kernels, 2]: columns and rows of a product, else elements and 1."""
    units, bandwidth = device.units.value, device.memory_bandwidth_b_s.value
    peak = gpu.peak(kernels.kind, kernels.precision, device)
    cols, rows = tiles.T
    if "k" in kernels.sizes:
        batch, m, n, k = (kernels[name] for name in ("batch", "m", "n", "k"))
        count = batch * np.ceil(m / rows) * np.ceil(n / cols)
        tile_flop = 2 * rows * cols * k
        tile_bytes = kernels["item_bytes"] * (rows * k + k * cols + rows * cols)
    else:
        elements = _elements(kernels)
        count = np.ceil(elements / cols)
        tile_flop = _ROW_FLOP.get(kernels.kind, 1.0) * cols
        tile_bytes = kernels["moved_bytes"] / elements * cols
    waves = np.ceil(count / units)
    reached = np.minimum(peak, count * tile_flop / kernels["moved_bytes"] * bandwidth)
    cache = device.cache_bytes.value if device.cache_bytes else 4e6
    ratios = (
        tile_flop / (peak / units), tile_bytes / (bandwidth / units),
        waves * tile_bytes / (device.memory_bytes.value / units), waves * tile_bytes / (cache / units),
    )  # fmt: skip
    return Cut(waves, waves * units * tile_flop / reached, np.log2(np.stack(ratios, axis=1)))


def own_tiles(kernels: Kernels) -> Array:
    """The tiles that kernels are known to run in: measured ones; softmax and normalization take one row each."""
    if kernels.kind in _ROW_FLOP:
        return np.stack([kernels["columns"], np.ones(len(kernels))], axis=1)
    cols, rows = (kernels[name] for name in TILES)
    return np.stack([cols, rows if "k" in kernels.sizes else np.ones(len(kernels))], axis=1)


def nearest(keys: Array, queries: Array) -> Array:
    """Of each query [Q, F] the row of `keys` [K, F] that is nearest, plain Euclidean on raw numbers."""
    half = (keys**2).sum(axis=1) / 2
    parts = [np.argmin(half - chunk @ keys.T, axis=1) for chunk in np.array_split(queries, len(queries) // _CHUNK + 1)]
    return np.concatenate(parts)


def _keys(kernels: Kernels, device: Device) -> Array:
    """Shapes and data sheet in NeuSight's units: units, GFLOP/s, GB, GB/s, MB."""
    if "k" in kernels.sizes:
        shape = [kernels[name] for name in ("batch", "m", "k", "n")]
    else:
        elements = _elements(kernels)
        shape = [elements, kernels["moved_bytes"] / elements]
    cache = device.cache_bytes.value if device.cache_bytes else 4e6
    sheet = (device.units.value, gpu.peak(kernels.kind, kernels.precision, device) / 1e9,
             device.memory_bytes.value / 1e9, device.memory_bandwidth_b_s.value / 1e9, cache / 2**20)  # fmt: skip
    return np.stack([*shape, *(np.full(len(kernels), number) for number in sheet)], axis=1)


def _elements(kernels: Kernels) -> Array:
    """Outputs of each kernel: one FLOP each, but no more than traffic allows (pow, fused chains) nor than none."""
    if "rows" in kernels.sizes:
        return kernels["rows"] * kernels["columns"]
    through = np.maximum(kernels["moved_bytes"] / (2 * kernels["item_bytes"]), 1.0)
    return np.where(kernels["flop"] > 0, np.clip(kernels["flop"], 1.0, through), through)


def utilization(outputs: "Tensor", waves: "Tensor") -> "Tensor":
    """u = g - a'/w with g = sigmoid(o3), a' = g sigmoid(o1), in (0, 1]; o2 is unused, as in NeuSight's code."""
    ceiling = outputs[:, 2].sigmoid()
    return (ceiling * (1 - outputs[:, 0].sigmoid() / waves)).clamp(min=_LEAST_UTILIZATION)


def _seconds(outputs: "Tensor", givens: "Tensor") -> "Tensor":
    waves, ideal_s = givens[:, 0], givens[:, 1]
    return ideal_s / utilization(outputs, waves)


def symmetric_error(forecast_s: "Tensor", measured_s: "Tensor") -> "Tensor":
    """Mean |y - p| / (y + p); the same for latency and for latency per wave."""
    return ((measured_s - forecast_s).abs() / (measured_s + forecast_s)).mean()
