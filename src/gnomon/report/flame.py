"""A flame chart: every span of one call as a rectangle, as wide as it took, below the span that it ran in."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.measure.analyses.join import base_name
from gnomon.measure.record import Span
from gnomon.report import text
from gnomon.report.nesting import Placed, nest
from gnomon.report.templates import render_template

MOST = 4000  # rectangles; beyond that the narrowest are left out and counted


@dataclass(frozen=True, slots=True)
class Rectangle:
    """x, width: fractions of the chart's width, in [0, 1]. row: 0 is the top. category: of an operator, or 'module'."""

    index: int
    x: float
    width: float
    row: int
    label: str
    title: str
    category: str


def rectangles(spans: Sequence[Span], categories: Mapping[str, str]) -> tuple[Rectangle, ...]:
    """Spans as rectangles. categories: operator name without library and overload ('addmm') -> its category."""
    placed = nest(spans)
    if not placed:
        return ()
    begin = min(place.start_s for place in placed)
    length = max(place.end_s for place in placed) - begin
    if length <= 0:
        return ()
    first_row = _first_rows(placed)
    return tuple(
        Rectangle(
            index=place.span,
            x=(place.start_s - begin) / length,
            width=(place.end_s - place.start_s) / length,
            row=first_row[place.track] + place.depth,
            label=_label(spans[place.span]),
            title=_title(spans[place.span], length),
            category=_category(spans[place.span], categories),
        )
        for place in placed
    )


def svg(spans: Sequence[Span], categories: Mapping[str, str], most: int = MOST) -> str:
    """The chart as SVG text that fits any width; '' when there is nothing to draw.

    The `most` widest rectangles are drawn; how many were left out stands below the chart.
    """
    found = rectangles(spans, categories)
    widest = set(sorted(range(len(found)), key=lambda i: (-found[i].width, i))[:most])
    drawn = [rectangle for i, rectangle in enumerate(found) if i in widest]
    if not drawn:
        return ""
    counts = Counter(rectangle.category for rectangle in drawn)
    return render_template(
        "flame.svg",
        rectangles=drawn,
        rows=max(rectangle.row for rectangle in drawn) + 1,
        omitted=len(found) - len(drawn),
        categories=[category for category, _ in counts.most_common()],
    )


def _first_rows(placed: Sequence[Placed]) -> list[int]:
    """The row where each track starts: below the deepest span of the track before."""
    depths: Counter[int] = Counter()
    for place in placed:
        depths[place.track] = max(depths[place.track], place.depth + 1)
    rows = [0]
    for track in range(len(depths)):
        rows.append(rows[-1] + depths[track])
    return rows


def _label(span: Span) -> str:
    """Operators by their bare name, modules by the last part of their path ('layer.0' when it is a number)."""
    if span.level in ("operator", "kernel"):
        return base_name(span.name)
    if span.level != "layer":
        return span.name
    around, _, last = span.name.rpartition(".")
    return f"{around.rpartition('.')[2]}.{last}" if last.isdecimal() and around else last or "(model)"


def _title(span: Span, length: float) -> str:
    lines = [span.name, f"{text.seconds(span.wall_s)} wall, {text.percent(span.wall_s / length)} of the call"]
    if span.cpu_s is not None:
        lines.append(f"{text.seconds(span.cpu_s)} CPU")
    lines += [f"{key}: {_plain(value)}" for key, value in span.attributes.items() if value not in ("", None, (), [])]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    """Shapes as people write them, everything else as it is."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, int) for item in value):
        return text.shape(value)
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def _category(span: Span, categories: Mapping[str, str]) -> str:
    if span.level not in ("operator", "kernel"):
        return "module"
    return str(span.attributes.get("category") or categories.get(base_name(span.name), "unknown"))
