"""Exact attention over the kept keys of one head on one lane: groups of T queries through the array and the softmax.

A group's scores occupy the array, its softmax the multi-function unit, its weighted sum of values the array again. The
array works on the next group's scores while a softmax runs, and never waits for anything else but the keys it reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnomon.kernels.detected_attention.accelerator.design import EXACT_BYTES, Design
from gnomon.kernels.detected_attention.accelerator.scheduler import Totals, totals


class Busy(NamedTuple):
    """A stretch of cycles on one unit of a lane. unit: 'array' or 'softmax'."""

    unit: str
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class HeadRun:
    """cycles from the first score to the last value. loads: keys read (values as often). steps, pairs: summed over
    groups. array_cycles, softmax_cycles: in which these units work."""

    cycles: int
    loads: int
    steps: int
    pairs: int
    array_cycles: int
    softmax_cycles: int
    busy: tuple[Busy, ...]


class _Group(NamedTuple):
    product: int  # cycles of the scores, and again of the weighted values
    softmax: int
    found: Totals


def run_head(mask: NDArray[np.bool_], head_dim: int, design: Design) -> HeadRun:
    """mask: [n, n], the keys that every query of the head keeps."""
    groups = list(_groups(mask, head_dim, design))
    busy: list[Busy] = []
    array = softmax = 0  # when each unit is free

    def values(i: int, ready: int) -> None:
        nonlocal array
        start = max(array, ready)
        array = start + groups[i].product
        busy.append(Busy("array", f"values {i}", start, array))

    ready = 0  # when the last group's probabilities are there
    for i, group in enumerate(groups):
        scored = array + group.product
        busy.append(Busy("array", f"scores {i}", array, scored))
        array = scored
        if i:
            values(i - 1, ready)
        start = max(softmax, scored)
        softmax = ready = start + group.softmax
        busy.append(Busy("softmax", f"softmax {i}", start, softmax))
    values(len(groups) - 1, ready)
    return HeadRun(
        cycles=array,
        loads=sum(group.found.loads for group in groups),
        steps=sum(group.found.steps for group in groups),
        pairs=sum(group.found.pairs for group in groups),
        array_cycles=sum(2 * group.product for group in groups),
        softmax_cycles=sum(group.softmax for group in groups),
        busy=tuple(busy),
    )


def _groups(mask: NDArray[np.bool_], head_dim: int, design: Design) -> Iterator[_Group]:
    together = 1 if design.order == "row-by-row" else design.queries
    known: dict[bytes, Totals] = {}  # groups of dense or regular masks are alike
    for first in range(0, len(mask), together):
        rows = mask[first : first + together]
        key = rows.tobytes()
        if key not in known:
            known[key] = totals(rows, design.order, design.splits)
        found = known[key]
        compute = -(-found.steps * together * head_dim // design.elements)
        reading = -(-found.loads * head_dim * EXACT_BYTES // design.sram_bytes_cycle)
        yield _Group(max(compute, reading), -(-found.pairs // design.units), found)
