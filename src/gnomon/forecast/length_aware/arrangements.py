"""Ways to send a batch of uneven sequences through an encoder, side by side: padded or not, dense or sparse, sorted."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gnomon.forecast.length_aware.allocate import Stage, allocate, by_name
from gnomon.forecast.length_aware.operators import Layer, encoder
from gnomon.forecast.length_aware.pipeline import PipelineSim, Run, longest_first

# a natural cut, because low-bit scores and selection want other hardware than matrix products
NATURAL = (
    ("qkv",),
    ("estimate", "select", "scores", "values"),
    ("projection", "norm 1", "ffn 1", "ffn 2", "norm 2"),
)

# of the method's card (12 layers, 16 sequences, median 120, sigma 0.6, 20 draws, top 30): speed-up over dense padded,
# and useful utilization. Its cut, width and longest length are not told; ours: the natural cut, BERT-base, 384 tokens
PUBLISHED: Mapping[str, tuple[float, float]] = {
    "dense padded": (1.0, 0.39),
    "dense": (1.27, 0.59),
    "sparse padded": (1.06, 0.43),
    "sparse": (1.54, 0.65),
    "sparse sorted": (1.85, 0.78),
    "sparse sorted buffered": (1.95, 0.83),
    "sparse buffered": (1.91, 0.81),
}


class Setting(NamedTuple):
    """The encoder, how often it is repeated, and the hardware. stages: how many the priorities are cut into; None takes
    the natural cut. buffer: of the buffered arrangements. unit_rate: work that a unit does a second.
    """

    width: int = 768
    ffn: int = 3072
    top_k: int = 30
    layers: int = 12
    budget: int = 3000
    stages: int | None = None
    buffer: int = 1
    unit_rate: float = 1e9

    def cut(self, layer: Layer, s_avg: float) -> list[Stage]:
        if self.stages is None:
            return by_name(layer, NATURAL, s_avg, self.budget)
        return allocate(layer, s_avg, self.budget, self.stages)


def run_all(lengths: Sequence[int], setting: Setting | None = None) -> dict[str, Run]:
    """Every arrangement by name; 'dense padded' is what the others are held against.

    Stages are sized for what they are sent: for the average length, or where sequences are padded, for the longest.
    Raises ValueError as PipelineSim does.
    """
    setting = setting or Setting()
    dense, sparse = encoder(setting.width, setting.ffn, None), encoder(setting.width, setting.ffn, setting.top_k)
    order = longest_first(lengths)

    def run(layer: Layer, of: Sequence[int], *, padded: bool = False, buffer: int = 0) -> Run:
        longest = max(of, default=0) if padded else None
        stages = setting.cut(layer, longest or sum(of) / max(len(of), 1) or 1)
        named = tuple((stage.name, lambda s, stage=stage: stage.seconds(s, setting.unit_rate)) for stage in stages)
        return PipelineSim(named, setting.layers, buffer).run(of, padded_to=longest)

    return {
        "dense padded": run(dense, lengths, padded=True),
        "dense": run(dense, lengths),
        "sparse padded": run(sparse, lengths, padded=True),
        "sparse": run(sparse, lengths),
        "sparse sorted": run(sparse, order),
        "sparse buffered": run(sparse, lengths, buffer=setting.buffer),
        "sparse sorted buffered": run(sparse, order, buffer=setting.buffer),
    }


class Row(NamedTuple):
    """An arrangement over all draws, each figure a mean. speedup: over 'dense padded' of the same draw."""

    name: str
    makespan_s: float
    speedup: float
    busy: float
    useful: float


def summary(draws: Sequence[Mapping[str, Run]]) -> list[Row]:
    """Means over draws. Raises ValueError when there is none."""
    if not draws:
        raise ValueError("draws must hold at least one; got none")

    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

    return [
        Row(
            name,
            mean([draw[name].makespan_s for draw in draws]),
            mean([draw["dense padded"].makespan_s / draw[name].makespan_s for draw in draws]),
            mean([draw[name].utilization for draw in draws]),
            mean([draw[name].useful_utilization for draw in draws]),
        )
        for name in draws[0]
    ]


def draw_lengths(count: int, median: float, sigma: float, seed: int, least: int = 8, most: int = 384) -> list[int]:
    """`count` lengths of a log-normal law, clipped. Raises ValueError naming the argument."""
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    if not (median > 0 and sigma >= 0 and 1 <= least <= most):
        raise ValueError(f"median > 0, sigma >= 0, 1 <= least <= most; got {median=}, {sigma=}, {least=}, {most=}")
    law = random.Random(seed)
    return [min(max(round(median * math.exp(law.gauss(0, sigma))), least), most) for _ in range(count)]
