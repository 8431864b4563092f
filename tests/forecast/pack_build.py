"""A pack of kernels in memory: GPUs with round numbers whose kernels follow a law that is known."""

from dataclasses import replace

import numpy as np

from gnomon.forecast.kernels import Kernels
from gnomon.forecast.pack.fp32 import products, vectors
from gnomon.forecast.pack.samples import Host, Samples

from .build import device

# what a data sheet states, as multiples of the round GPU in `build`: peak, bandwidth, units
SHEETS = {"alpha": (0.5, 0.4, 0.5), "beta": (0.8, 1.0, 0.7), "gamma": (1.0, 0.7, 0.8), "delta": (1.6, 1.5, 1.1)}
UNSEEN = (0.9, 0.8, 0.75)  # inside what the others span


def gpu(name, sheet=None):
    peak, bandwidth, units = sheet or SHEETS[name]
    plain = device(memory_bandwidth_b_s=bandwidth * 1e12, units=100.0 * units, cache_bytes=8e6 * units)
    return replace(plain, name=name, peak_flop_s={"float32": replace(plain.peak_flop_s["float32"], value=peak * 10e12)})


def linear(count, seed=0, tile=128.0) -> Kernels:
    m, n, k = 2.0 ** np.random.default_rng(seed).uniform(7, 13, (3, count)).round(1)
    made = products("linear", np.ones(count), np.ceil(m), np.ceil(n), np.ceil(k))
    tiles = np.full(count, tile)
    return replace(made, sizes={**made.sizes, "tile_a": tiles, "tile_b": tiles})


def elementwise(count, seed=0) -> Kernels:
    rows, columns = np.ceil(2.0 ** np.random.default_rng(seed).uniform(8, 14, (2, count)))
    made = vectors("elementwise", np.array(["add", "relu"] * (count // 2)), rows, columns)
    tiles = {"tile_a": np.full(count, 1024.0), "tile_b": np.full(count, np.nan)}
    return replace(made, sizes={**made.sizes, **tiles})


def softmax(count, seed=0) -> Kernels:
    rows, columns = np.ceil(2.0 ** np.random.default_rng(seed).uniform(8, 13, (2, count)))
    return vectors("softmax", np.array(["softmax"] * count), rows, columns)


def measured(device, kernels, law, host=None) -> Samples:
    """Kernels that took what `law(kernels, device)` says, in seconds; every fourth is a shape of a real model."""
    host = host or Host(0.0, 0.0)
    split = np.array(["test" if i % 4 == 0 else "train" for i in range(len(kernels))], dtype=object)
    return Samples(device, kernels, law(kernels, device) + host.launch_s, split, kernels.kind, host)


def pack(law, make=linear, count=200, names=tuple(SHEETS), host=None) -> list[Samples]:
    return [measured(gpu(name), make(count, seed), law, host) for seed, name in enumerate(names)]
