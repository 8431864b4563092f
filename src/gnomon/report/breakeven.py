"""A break-even table in the terminal: shapes down, sparsities or bits across."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gnomon.devices.breakeven import BreakEven
from gnomon.report import text


def print_break_even(console: Console, table: BreakEven) -> None:
    """Time over the dense layer's; below 1 it pays (green)."""
    what = "time over dense, by share of zeros" if table.kind == "sparsity" else "time over dense, by bits of a weight"
    title = Text(f"{table.device}: {what} ({table.library}, {table.threads} threads, {table.measured_at[:10]})")
    shown = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("rows", "outputs", "inputs", *(f"{level:g}" for level in table.levels)):
        shown.add_column(name, justify="right")
    ratios = {(k.m, k.n, k.k, k.level): k for k in table.kernels}
    for shape in dict.fromkeys((k.m, k.n, k.k) for k in table.kernels):
        cells = []
        for level in table.levels:
            kernel = ratios.get((*shape, level))
            cell = Text(text.NOT_MEASURED)
            if kernel is not None:
                style = "green" if kernel.high < 1 else "red" if kernel.low > 1 else ""
                cell = Text(f"{kernel.ratio:.2f} [{kernel.low:.2f}, {kernel.high:.2f}]", style=style)
            cells.append(cell)
        shown.add_row(*map(str, shape), *cells)
    console.print(shown)
