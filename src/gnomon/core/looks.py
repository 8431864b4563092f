"""Looking at a sample while it grows, without finding more than is there.

Who adds sessions until a difference is significant finds one in the end, whatever the truth. Here the sizes at which
the sample is looked at are fixed beforehand and every look uses the same, stricter level, chosen so that all its
intervals hold the truth at once as often as is promised (Pocock 1977, doi 10.1093/biomet/64.2.191; as repeated
confidence intervals Jennison & Turnbull 1989). Pocock's constants are for a known spread; with a handful of sessions
it is estimated. The joint law of Student's t at several sizes of one growing sample depends on nothing but the sizes,
so it is simulated, from a fixed seed.
"""

import functools
from dataclasses import dataclass

import numpy as np

from gnomon.core.student import two_sided_p

USUAL = (3, 4, 6, 9, 13, 20, 30)  # about half as many again each time
_PATHS = 200_000  # the level found is then within 0.05 percentage points (one standard error)
_CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class Looks:
    """The numbers of sessions after which a comparison is judged; the last is the most that it may take.

    Raises ValueError unless they are rising and start at 2 or more (one session on its own bounds nothing).
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.sizes, self.sizes[1:], strict=False))
        if not self.sizes or not rising or (len(self.sizes) > 1 and self.sizes[0] < 2) or self.sizes[0] < 1:
            raise ValueError(f"wanted rising numbers of sessions, from 2 on; got {self.sizes}")

    @property
    def most(self) -> int:
        return self.sizes[-1]

    def nominal(self, level: float) -> float:
        """The level of a single look's interval, so that the intervals of all looks hold together with `level`."""
        return level if len(self.sizes) == 1 else _nominal(self.sizes, level)


def until(most: int) -> Looks:
    """The usual looks up to at most `most` sessions."""
    sizes = [n for n in USUAL if n < most]
    return Looks((*sizes, most))


@functools.cache
def _nominal(sizes: tuple[int, ...], level: float) -> float:
    smallest = np.concatenate([_smallest_p(sizes, _CHUNK, seed) for seed in range(_PATHS // _CHUNK)])
    return 1.0 - float(np.quantile(smallest, 1.0 - level))


def _smallest_p(sizes: tuple[int, ...], paths: int, seed: int) -> np.ndarray:
    """The smallest two-sided p-value over the looks at each of `paths` samples without an effect."""
    draws = np.random.default_rng(seed).standard_normal((paths, sizes[-1]))
    sums, squares = draws.cumsum(axis=1), (draws**2).cumsum(axis=1)
    smallest = np.ones(paths)
    for n in sizes:
        mean = sums[:, n - 1] / n
        variance = (squares[:, n - 1] - n * mean**2) / (n - 1)
        smallest = np.minimum(smallest, two_sided_p(mean / np.sqrt(variance / n), n - 1))
    return smallest
