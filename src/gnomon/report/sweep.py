"""A sweep as a table, a picture, and the answer to 'which device should I take'."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.forecast.sweep import Answer, Objective, Point, Range, Sweep, best_by_device, value_of
from gnomon.report import text

_WIDTH = 110
_MOST_ROWS = 60
_DRAWN = 6  # devices with a colour of their own
_COLOURS = ("#2f5d86", "#b4540a", "#2c7a4b", "#8a4fa0", "#b3372f", "#1b8a8a")
_REST = "#b9b5aa"


def sentences(sweep: Sweep, found: Answer) -> list[str]:
    """The answer in words: the best device with its interval, and which ones cannot be told apart from it."""
    best, what = found.best, {"latency": "shortest step", "throughput": "highest throughput", "cost": "lowest cost"}
    value = value_of(best, found.objective)
    assert value is not None
    said = [f"{what[found.objective]}: {best.device} {_setting(best)}, {_shown(sweep, found.objective, value)}."]
    if found.rivals:
        names = ", ".join(p.device for p in found.rivals)
        said.append(f"Not told apart from it, because their intervals overlap: {names}.")
    else:
        said.append("No other device's interval reaches it.")
    if found.objective == "cost":
        unpriced = {p.device for p in sweep.points if p.fits and p.time is not None} - {
            p.device for p in best_by_device(sweep.points, "cost")
        }
        if unpriced:
            said.append(f"{len(unpriced)} devices have no price and were left out.")
        if sweep.prices_from:
            said.append(f"Prices: {sweep.prices_from}.")
    return said


def print_sweep(console: Console, sweep: Sweep, found: Answer) -> None:
    """All points of a small sweep; of a large one the best of every device. Then the answer."""
    points: Sequence[Point] = sweep.points
    title = f"{sweep.task}: {sweep.mode}, {sweep.host}, {len(points)} points ({sweep.predictor})"
    if len(points) > _MOST_ROWS:
        points = _best_of_each(points, found.objective)
        title += f"; the best of each device for {found.objective}"
    lengths = {p.seqlen for p in sweep.points}
    columns: list[tuple[str, Callable[[Point], str | Text]]] = [
        ("device", lambda p: escape(_short(p.device))),
        ("dtype", lambda p: p.dtype),
        ("batch", lambda p: str(p.batch)),
        ("tokens", lambda p: str(p.seqlen)),
        ("time", lambda p: text.estimate(p.time).value if p.time else "-"),
        ("90 % interval", lambda p: text.estimate(p.time).interval if p.time else "-"),
        (f"{sweep.unit}/s", lambda p: _count(p.throughput.value) if p.throughput else "-"),
        (f"{sweep.currency}/million", lambda p: _price(p.cost.value) if p.cost else "no price"),
        ("", _verdict),
    ]
    left_out = {"tokens"} if len(lengths) == 1 else set()
    if all(p.cost is None for p in points):
        left_out.add(f"{sweep.currency}/million")
    columns = [(name, cell) for name, cell in columns if name not in left_out]
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, _ in columns:
        on_left = name in ("device", "dtype", "")
        table.add_column(
            name, justify="left" if on_left else "right", no_wrap=name not in ("device", ""), overflow="fold"
        )
    for point in points:
        table.add_row(*(cell(point) for _, cell in columns), style="bold" if point == found.best else None)
    console.print(table, width=min(console.width, _WIDTH))
    for sentence in sentences(sweep, found):
        console.print(Text(sentence), width=min(console.width, _WIDTH), highlight=False)


def _best_of_each(points: Sequence[Point], objective: Objective) -> list[Point]:
    """The best point of every device, then where it says nothing the fastest, then the rest."""
    chosen: dict[str, Point] = {}
    objectives: tuple[Objective, ...] = (objective, "throughput")
    for which in objectives:
        for point in best_by_device(points, which):
            chosen.setdefault(point.device, point)
    for point in points:
        chosen.setdefault(point.device, point)
    return list(chosen.values())


def _verdict(point: Point) -> str | Text:
    """What bounds it, or why not."""
    if point.time is None:
        return Text(f"no {point.dtype}" if f"no {point.dtype}" in point.why_not else "cannot run", style="red")
    return point.bound if point.fits else Text(point.why_not, style="red")


def _short(device: str) -> str:
    """A device's name without those of its maker and series, which fill the table."""
    words = [w for w in device.split() if w not in ("NVIDIA", "AMD", "GeForce", "Tesla", "Instinct")]
    return " ".join(words) or device


def _setting(point: Point) -> str:
    length = f", {point.seqlen} tokens" if point.seqlen else ""
    return f"({point.dtype}, batch {point.batch}{length})"


def _shown(sweep: Sweep, objective: str, value: Range) -> str:
    if objective == "latency":
        return str(text.between(value.value, value.low, value.high, text.seconds))
    if objective == "throughput":
        return f"{_count(value.value)} {sweep.unit}/s [{_count(value.low)}, {_count(value.high)}]"
    unit = f"{sweep.currency} per million {sweep.unit}"
    return f"{_price(value.value)} {unit} [{_price(value.low)}, {_price(value.high)}]"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _price(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.2g}"


def draw(sweep: Sweep, path: Path) -> None:
    """Throughput over batch, a line for every device in its fastest dtype; the best with their intervals.

    Raises UsageError when the file cannot be written or is no .svg or .png, NotRunnable without matplotlib.
    """
    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"wanted a file called .svg or .png, got {str(path)!r}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotRunnable(f"pictures need matplotlib: {error}. Get it with: pip install matplotlib") from error
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "gnomon", "text.parse_math": False, "font.size": 11}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        axes = figure.add_subplot()
        for place, best in reversed(list(enumerate(best_by_device(sweep.points, "throughput")))):
            line = [p for p in sweep.points if p.device == best.device and p.dtype == best.dtype and p.fits
                    and p.seqlen == best.seqlen and p.throughput is not None]  # fmt: skip
            batches = [p.batch for p in line]
            rates = [p.throughput for p in line if p.throughput is not None]
            is_first = place < _DRAWN
            colour = _COLOURS[place] if is_first else _REST
            axes.plot(batches, [r.value for r in rates], "o-", color=colour, markersize=3, lw=1.6 if is_first else 0.8,
                      label=f"{best.device} ({best.dtype})" if is_first else None)  # fmt: skip
            if place < 2:
                axes.fill_between(
                    batches, [r.low for r in rates], [r.high for r in rates], color=colour, alpha=0.15, lw=0
                )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("batch")
        axes.set_ylabel(f"{sweep.unit} per second")
        axes.set_title(f"{sweep.task}: {sweep.mode}, forecast ({sweep.predictor}); bands: 90 % intervals", loc="left")
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        try:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
