"""Kernels of the stored call in the terminal: those of a device, or the calls of a CPU's libraries."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gnomon.measure.record import Span
from gnomon.report import text

_WIDTH = 100


def print_kernels(console: Console, spans: Sequence[Span], most: int = 10) -> None:
    """By name, longest first, with their share of the model's time. Nothing where there are none."""
    kernels = [span for span in spans if span.level == "kernel"]
    if not kernels:
        return
    model_s = next((span.wall_s for span in spans if span.level == "model"), 0.0)
    by_name: dict[tuple[str, str], list[float]] = {}
    for span in kernels:
        by_name.setdefault((span.name, str(span.attributes.get("library", "device"))), []).append(span.wall_s)
    title = Text("kernels of one call; share of the model's time")
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, side in (("kernel", "left"), ("of", "left"), ("calls", "right"), ("time", "right"), ("share", "right")):
        table.add_column(Text(name), justify="left" if side == "left" else "right", overflow="fold")
    for (name, library), times in sorted(by_name.items(), key=lambda item: -math.fsum(item[1]))[:most]:
        total = math.fsum(times)
        share = text.percent(total / model_s if model_s else None)
        table.add_row(escape(name), library, str(len(times)), text.seconds(total), share)
    console.print(table, width=min(console.width, _WIDTH))
