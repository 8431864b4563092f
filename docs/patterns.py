"""Pictures of attention patterns, drawn from the definitions when the documentation is built (see conf.py).

`python docs/patterns.py` writes them into docs/_pictures; nothing is kept in the repository.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gnomon.kernels.detected_attention import select
from gnomon.kernels.neighborhood_attention.problem import Problem

FOLDER = Path(__file__).with_name("_pictures")
_CELL, _GAP, _HEAD = 9, 22, 20  # pixels: of a cell, between panels, above them
_COLOURS = ("#eceae4", "#2f5d86", "#d98c3f", "#a9c3da")  # not seen, seen, the query, computed in vain
UNSEEN, SEEN, QUERY, IN_VAIN = range(4)


class Panel(NamedTuple):
    """values: [rows, columns] of UNSEEN, SEEN, QUERY and IN_VAIN."""

    title: str
    values: NDArray[np.int64]


def pictures() -> Mapping[str, str]:
    """File name -> SVG."""
    return {
        "neighborhood-1d.svg": svg(_lines()),
        "neighborhood-2d.svg": svg(_grids()),
        "tiles.svg": svg(_tiles()),
        "detected.svg": svg(_detected()),
    }


def svg(panels: Sequence[Panel]) -> str:
    """Panels side by side, one square for each cell."""
    parts, left = [], 0
    for panel in panels:
        columns = panel.values.shape[1]
        parts.append(f'<text x="{left}" y="{_HEAD - 7}">{panel.title}</text>')
        for colour, name in enumerate(_COLOURS):
            at = np.argwhere(panel.values == colour)
            cells = "".join(
                f"M{left + x * _CELL},{_HEAD + y * _CELL}h{_CELL - 1}v{_CELL - 1}h-{_CELL - 1}z" for y, x in at
            )
            if cells:
                parts.append(f'<path fill="{name}" d="{cells}"/>')
        left += max(columns * _CELL, 7 * len(panel.title)) + _GAP
    height = _HEAD + max(len(panel.values) for panel in panels) * _CELL
    style = "<style>text{font:12px sans-serif;fill:#666}</style>"
    size = f'width="{left - _GAP}" height="{height}" viewBox="0 0 {left - _GAP} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join(parts)}</svg>\n'


def _lines() -> list[Panel]:
    """Queries down, keys across."""
    problems = {
        "window 5": Problem.of((16,), 5),
        "stride 4, window 8": Problem.of((16,), 8, stride=4),
        "dilation 2, window 5": Problem.of((16,), 5, dilation=2),
        "causal, window 5": Problem.of((16,), 5, is_causal=True),
        "stride = window = 4": Problem.of((16,), 4, stride=4),
    }
    return [Panel(title, problem.mask().astype(np.int64)) for title, problem in problems.items()]


def _grids() -> list[Panel]:
    """The grid itself: what one query sees."""
    cases = [
        ("in the middle", Problem.of((13, 13), 5), (6, 6)),
        ("at the edge", Problem.of((13, 13), 5), (0, 11)),
        ("dilation 2", Problem.of((13, 13), 5, dilation=2), (6, 6)),
        ("window 3 x 9", Problem.of((13, 13), (3, 9)), (6, 6)),
        ("causal down", Problem.of((13, 13), 5, is_causal=(True, False)), (6, 6)),
    ]
    panels = []
    for title, problem, query in cases:
        seen = problem.mask()[np.ravel_multi_index(query, problem.space)].reshape(problem.space).astype(np.int64)
        seen[query] = QUERY
        panels.append(Panel(title, seen))
    return panels


def _tiles() -> list[Panel]:
    """Queries down, keys across: what tiles of 4 compute, asked for or not."""
    panels = []
    for stride in (1, 2, 4):
        mask = Problem.of((32,), 12, stride=stride).mask()
        touched = mask.reshape(8, 4, 8, 4).any((1, 3)).repeat(4, 0).repeat(4, 1)
        panels.append(Panel(f"window 12, stride {stride}, tile 4", np.where(mask, SEEN, np.where(touched, IN_VAIN, 0))))
    return panels


def _detected() -> list[Panel]:
    """Queries down, keys across: what is kept of the same scores of 24 tokens."""
    random = np.random.default_rng(1)
    tokens = random.standard_normal((2, 24, 8))
    tokens[:, 1:] += tokens[:, :-1]  # neighbours are alike
    scores = torch.tensor(tokens[0] @ tokens[1].T)[None, None]
    every, back = torch.ones(24, 24, dtype=torch.bool), torch.ones(24, 24, dtype=torch.bool).tril()
    kept = {
        "top 5 of 24": select.mask_of(select.top_k(scores, 0.2, every), 24, 24),
        "top 5, causal": select.mask_of(select.top_k(scores, 0.2, back), 24, 24),
        "threshold": select.mask_of(select.above(scores, float(scores.quantile(0.8)), every), 24, 24),
        "blocks of 4 x 4": select.mask_of(select.top_k_blocks(scores, 0.2, every, (4, 4)), 24, 24, (4, 4)),
    }
    return [Panel(title, mask[0, 0].numpy().astype(np.int64)) for title, mask in kept.items()]


def write(folder: Path = FOLDER) -> None:
    """Draw all pictures into a folder."""
    folder.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write()
    print(f"wrote {FOLDER.name}/")
