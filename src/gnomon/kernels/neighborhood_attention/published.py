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
    """speedup: of the kernel over cuDNN's dense one. flop_s: useful FLOP per second of the kernel. flop_bound,
    tile_bound: what the card counted for the problem, to one digit behind the point.
    """

    problem: Problem
    heads: int
    head_dim: int
    tiles: TilePair
    speedup: float
    flop_s: float
    flop_bound: float
    tile_bound: float

    @property
    def seconds(self) -> float:
        """Time of the kernel, from its rate: two products of D for every pair of every head."""
        return 4 * self.problem.pairs() * self.head_dim * self.heads / self.flop_s

    @property
    def counted(self) -> TileCount:
        return count(self.problem, *self.tiles)

    @property
    def efficiency(self) -> float:
        """Measured speed-up over the tile bound: what the kernel keeps of the dense kernel's rate, tile for tile."""
        return self.speedup / self.counted.tile_bound


def _case(
    problem: tuple[tuple[int, ...], tuple[int, ...]],
    stride: tuple[int, ...],
    heads: int,
    tile: tuple[int, ...],
    bounds: tuple[float, float],
    speedup: float,
    tflop_s: float,
) -> Case:
    return Case(Problem.of(*problem, stride), heads, 128, TilePair(tile, tile), speedup, tflop_s * 1e12, *bounds)


_LINE = (32768,), (2048,)
_IMAGE = (256, 256), (80, 80)
_VIDEO = (30, 48, 80), (18, 24, 24)
CASES = (
    _case(_LINE, (1,), 1, (128,), (16.0, 15.1), 8.3, 362),
    _case(_LINE, (256,), 1, (128,), (16.0, 16.0), 12.6, 548),
    _case(_LINE, (2048,), 1, (128,), (16.0, 16.0), 13.3, 580),
    _case(_IMAGE, (1, 1), 24, (16, 8), (10.2, 7.5), 6.0, 318),
    _case(_IMAGE, (16, 16), 24, (16, 8), (10.2, 10.2), 12.3, 651),
    _case(_VIDEO, (1, 1, 1), 24, (2, 8, 8), (11.1, 5.4), 3.6, 186),
    _case(_VIDEO, (16, 8, 8), 24, (2, 8, 8), (11.1, 11.1), 12.1, 628),
)
