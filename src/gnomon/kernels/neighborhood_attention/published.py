"""What is published about generalized neighborhood attention on one GPU, to hold the tile counts against.

Source: Hassani et al. 2025 (arXiv:2504.16922) and the sample outputs that NATTEN's documentation prints for the same
problems: one NVIDIA H100, half precision, forward pass, time of the kernel alone; the dense baseline is cuDNN's kernel.
Taken from the method's card of this project, which compared them with the counts; not measured by us.
"""

from typing import NamedTuple

from gnomon.kernels.neighborhood_attention.problem import Problem
from gnomon.kernels.neighborhood_attention.tiles import TileCount, TilePair, count

SOURCE = "NATTEN's sample outputs (H100, kernel time, against cuDNN); problems of arXiv:2504.16922"
DENSE_FLOP_S = (542e12, 698e12)  # least and most that cuDNN's dense kernel reached on these problems


class Case(NamedTuple):
    """speedup: of the kernel over cuDNN's dense one. flop_s: useful FLOP per second of the kernel."""

    problem: Problem
    heads: int
    head_dim: int
    tiles: TilePair
    speedup: float
    flop_s: float

    @property
    def counted(self) -> TileCount:
        return count(self.problem, *self.tiles)

    @property
    def efficiency(self) -> float:
        """Measured speed-up over the tile bound: what the kernel keeps of the dense kernel's rate, tile for tile."""
        return self.speedup / self.counted.tile_bound


def _case(space: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], heads: int, tile: tuple[int, ...],
          speedup: float, tflop_s: float) -> Case:  # fmt: skip
    return Case(Problem.of(space, window, stride), heads, 128, TilePair(tile, tile), speedup, tflop_s * 1e12)


_LINE = (32768,), (2048,)
_IMAGE = (256, 256), (80, 80)
_VIDEO = (30, 48, 80), (18, 24, 24)
CASES = (
    _case(*_LINE, (1,), 1, (128,), 8.3, 362),
    _case(*_LINE, (256,), 1, (128,), 12.6, 548),
    _case(*_LINE, (2048,), 1, (128,), 13.3, 580),
    _case(*_IMAGE, (1, 1), 24, (16, 8), 6.0, 318),
    _case(*_IMAGE, (16, 16), 24, (16, 8), 12.3, 651),
    _case(*_VIDEO, (1, 1, 1), 24, (2, 8, 8), 3.6, 186),
    _case(*_VIDEO, (16, 8, 8), 24, (2, 8, 8), 12.1, 628),
)
