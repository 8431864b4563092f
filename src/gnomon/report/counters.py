"""Stages of the application and counters of the hardware in the terminal. What is not available says why."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gnomon.measure.record import Counter, Stage
from gnomon.report import text

_WIDTH = 100
# name, numerator, denominator: what people ask of counters
_RATIOS = (
    ("instructions per cycle", "instructions", "cycles"),
    ("cache misses per reference", "cache-misses", "cache-references"),
    ("branch misses per branch", "branch-misses", "branches"),
)


def print_stages(console: Console, stages: Sequence[Stage]) -> None:
    """What a user waits for, once per process and in every call. Nothing where the level was not measured."""
    if not stages:
        return
    table = _table("application", ("stage", "l"), ("when", "l"), ("wall time", "r"), ("CPU time", "r"))
    for stage in stages:
        when = "once per process" if stage.kind == "start" else "every call"
        cpu = str(text.interval(stage.cpu_s)) if stage.cpu_s is not None else text.NOT_MEASURED
        table.add_row(escape(stage.name), when, str(text.interval(stage.wall_s)), cpu)
    console.print(table, width=min(console.width, _WIDTH))


def print_counters(console: Console, counters: Sequence[Counter]) -> None:
    """Counts of one call with intervals, ratios of them, and the reason for every counter that is not there."""
    if not counters:
        return
    there = [one for one in counters if one.value is not None]
    if there:
        table = _table("counters of one call", ("counter", "l"), ("from", "l"), ("median", "r"), ("counting", "r"))
        for one in there:
            show = _nanoseconds if one.name == "task-clock" else _count
            table.add_row(escape(one.name), one.source, str(text.interval(one.value, show)), text.percent(one.running))
        for name, value in ratios(there):
            table.add_row(name, "", text.number(value), "")
        console.print(table, width=min(console.width, _WIDTH))
    for note in dict.fromkeys(one.note for one in there if one.note):
        _say(console, note)
    reasons: dict[str, list[str]] = {}
    for one in counters:
        if one.unavailable is not None:
            name = one.name if one.source == "perf" else f"{one.name} (valgrind)"
            reasons.setdefault(one.unavailable, []).append(name)
    for reason, names in reasons.items():
        _say(console, f"not available: {', '.join(names)}: {reason}")


def ratios(counters: Sequence[Counter]) -> list[tuple[str, float]]:
    """Instructions per cycle and the like, where this machine counts both sides."""
    values = {one.name: one.value.value for one in counters if one.value is not None and one.source == "perf"}
    return [(name, values[a] / values[b]) for name, a, b in _RATIOS if a in values and values.get(b, 0) > 0]


def _nanoseconds(value: float) -> str:
    return text.seconds(value * 1e-9)


def _count(value: float) -> str:
    """'1.53 M': events in thousands, millions or milliards."""
    if value == 0:
        return "0"
    power = min(max(int(math.log10(abs(value)) // 3), 0), 4)
    number = value / 1000**power
    return f"{number:.4g} {('', 'k', 'M', 'G', 'T')[power]}".rstrip()


def _table(title: str, *columns: tuple[str, str]) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, side in columns:
        table.add_column(Text(name), justify="right" if side == "r" else "left", overflow="fold")
    return table


def _say(console: Console, sentence: str) -> None:
    console.print(Text(sentence, style="dim"), width=min(console.width, _WIDTH), highlight=False)
