"""Analyses as text: one printer for the terminal, and CSV, Markdown and HTML, all from the same table."""

import csv
import html
import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gnomon.core.units import format_count
from gnomon.measure.analyses.analysis import Analysis, Cell, Column, Form
from gnomon.report import text

_WIDTH = 120
_TEXTS = {"text", "bool"}
_MOST_COLUMNS = 8  # of a single row; more stand below each other


def shown(value: Cell, unit: str) -> str:
    """A cell as people read it; what is not known is '-'."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return {
        "s": _seconds,
        "B": text.byte_count,
        "FLOP": text.flop_count,
        "FLOP/s": lambda x: text.per_second(x, "FLOP"),
        "B/s": lambda x: text.per_second(x, "B"),
        "1/s": lambda x: f"{format_count(x)} /s",
        "FLOP/B": lambda x: f"{x:.3g}",
        "share": _share,
        "x": text.times,
    }.get(unit, _plain)(value)


def print_analysis(console: Console, analysis: Analysis, most: int | None = 20) -> None:
    """The table with its question and notes. most: rows shown; None for all. Columns without any value are left out."""
    console.print(Text(analysis.title, style="bold"), Text(f" {analysis.question}"), highlight=False, soft_wrap=True)
    if analysis.missing is not None:
        console.print(Text(f"  not answered: {analysis.missing}", style="yellow"), highlight=False, soft_wrap=True)
        console.print()
        return
    kept = [i for i, c in enumerate(analysis.columns) if any(row[i] not in (None, "") for row in analysis.rows)]
    is_upright = len(analysis.rows) == 1 and len(kept) > _MOST_COLUMNS
    table = _upright(analysis, kept) if is_upright else _table(analysis, kept, most)
    console.print(table, width=None if is_upright else min(console.width, _WIDTH))
    left = len(analysis.rows) - len(analysis.rows[:most])
    if left:
        console.print(Text(f"and {left} more rows; --rows {len(analysis.rows)} shows all", style="dim"))
    for note in analysis.notes:
        console.print(Text(f"- {note}", style="dim"), highlight=False, soft_wrap=True)
    console.print()


def _table(analysis: Analysis, kept: Sequence[int], most: int | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i in kept:
        column = analysis.columns[i]
        side = "left" if column.unit in _TEXTS else "right"
        table.add_column(_head(column), justify=side, overflow="fold")  # type: ignore[arg-type]
    for row in analysis.rows[:most]:
        table.add_row(*(escape(shown(row[i], analysis.columns[i].unit)) for i in kept))
    return table


def _upright(analysis: Analysis, kept: Sequence[int]) -> Table:
    """The only row as one line per column: side by side they would be cut to pieces."""
    table = Table(box=box.SIMPLE, pad_edge=False, show_header=False)
    for i in kept:
        column = analysis.columns[i]
        table.add_row(escape(_head(column)), escape(shown(analysis.rows[0][i], column.unit)))
    return table


def print_offers(console: Console, offers: Sequence[tuple[Form, str | None]], subject: str) -> None:
    """Which analyses there are and which can be answered. offers: a form with the reason why it cannot, or None."""
    table = Table(title=f"analyses of {subject}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("question", overflow="fold", ratio=3)
    table.add_column("answered here", overflow="fold", ratio=2)
    for form, missing in offers:
        table.add_row(escape(form.name), escape(form.question), "yes" if missing is None else escape(f"no: {missing}"))
    console.print(table, width=min(console.width, _WIDTH))


def as_csv(analyses: Sequence[Analysis]) -> str:
    """Numbers in base units, as they are; several analyses one after the other, each headed by its name."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    for i, one in enumerate(analyses):
        if len(analyses) > 1:
            table.writerows([[]] if i else [])
            table.writerow([f"# {one.name}"])
        table.writerow([_head(column, " [{}]") for column in one.columns])
        table.writerows([["" if cell is None else cell for cell in row] for row in one.rows])
        for note in _remarks(one):
            table.writerow([f"# {note}"])
    return out.getvalue()


def as_markdown(analyses: Sequence[Analysis]) -> str:
    """A heading, the question, a table and the notes for each."""
    parts = []
    for one in analyses:
        parts.append(f"## {one.title}\n\n{one.question}\n")
        if one.missing is None:
            lines = [[_head(column) for column in one.columns]]
            lines.append(["---" if c.unit in _TEXTS else "---:" for c in one.columns])
            lines += [[shown(v, c.unit) for v, c in zip(row, one.columns, strict=True)] for row in one.rows]
            parts.append("\n".join("| " + " | ".join(map(_one_line, line)) + " |" for line in lines) + "\n")
        parts += ["\n".join(f"- {note}" for note in _remarks(one)) + "\n"] if _remarks(one) else []
    return "\n".join(parts)


def as_html(analyses: Sequence[Analysis]) -> str:
    """Sections to put into a page; no style, no script."""
    parts = []
    for one in analyses:
        parts.append(f'<section id="{html.escape(one.name)}"><h2>{html.escape(one.title)}</h2>')
        parts.append(f"<p>{html.escape(one.question)}</p>")
        if one.missing is None:
            heads = "".join(
                f'<th scope="col" title="{html.escape(c.about)}">{html.escape(_head(c))}</th>' for c in one.columns
            )
            parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>")
            for row in one.rows:
                cells = (html.escape(shown(v, c.unit)) for v, c in zip(row, one.columns, strict=True))
                parts.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
            parts.append("</tbody></table>")
        parts += [f"<p>{html.escape(note)}</p>" for note in _remarks(one)]
        parts.append("</section>")
    return "\n".join(parts) + "\n"


def _remarks(analysis: Analysis) -> list[str]:
    return [f"not answered: {analysis.missing}"] if analysis.missing is not None else list(analysis.notes)


def _head(column: Column, unit: str = "") -> str:
    """The name without its unit where the cells carry it; unit: how to add it where they do not."""
    if unit:
        return column.name + (unit.format(column.unit) if column.unit not in {*_TEXTS, "count"} else "")
    return column.name.removesuffix("_s").removesuffix("_bytes").removesuffix("_flop").removesuffix("_b")


def _one_line(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _seconds(value: float) -> str:
    return text.seconds(value) if value >= 0 else "-" + text.seconds(-value)


def _share(value: float) -> str:
    return text.percent(value)


def _plain(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
