"""A characterization of graph networks as tables: where the time goes, what was compared, which statements hold."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gnomon.core.units import format_count
from gnomon.measure.phases.record import Advice, Check, GcnCharacterization, Locality, Ratio, Timed, only
from gnomon.report import text

_WIDTH = 110
_ROWS = (250, 1000, 4000)
_EXPLORED = {
    "widths": "orders of one GCN layer",
    "features": "one sum over neighbours, by features and implementation",
    "vertex-order": "one sum, by order of vertices and edges",
    "law": "one sum, by law of degrees",
    "degree": "one GCN layer, by mean degree",
    "batch": "one sum, over a batch or one graph",
    "fan-out": "one GraphSAGE layer, by sampled neighbours",
    "fusion": "one GCN layer, its phases fused",
    "classic": "beside PageRank and an MLP",
}
_STYLES = {"holds": "green", "does not hold": "red", "cannot be seen here": "yellow"}
_KINDS = {"finding": "findings", "software": "guidelines for software", "hardware": "guidelines for hardware"}


def print_characterization(console: Console, found: GcnCharacterization) -> None:
    """Graphs, phases of every model, explorations, checks and advice."""
    for warning in found.warnings:
        _say(console, Text(f"! {warning}", style="yellow"))
    _print_graphs(console, found)
    _print_models(console, found)
    _print_explored(console, found)
    _print_localities(console, found)
    for kind, title in _KINDS.items():
        _print_checks(console, title, [one for one in found.checks if one.kind == kind])
    print_advice(console, found.advice)
    for reason in found.left_out:
        _say(console, Text(f"left out: {reason}", style="dim"))


def print_advice(console: Console, advice: Sequence[Advice]) -> None:
    """What to do, for each model on each graph and for what was explored."""
    if not advice:
        return
    table = _table("advice", ("about", "l"), ("what to do", "l"))
    for one in advice:
        table.add_row(escape(one.about), escape(one.text))
    console.print(table, width=_width(console))


def markdown(found: GcnCharacterization) -> str:
    """Models, explorations against what they are compared with, checks and advice, as Markdown tables."""
    models = [
        (one.graph, one.model, one.order.removesuffix("-first"), one.implementation, text.seconds(one.seconds),
         text.percent(one.share("aggregation")), text.percent(attained(found, one, "aggregation")),
         text.percent(attained(found, one, "combination")))
        for one in found.group("models")
    ]  # fmt: skip
    explored = []
    for group, title in _EXPLORED.items():
        passes = found.group(group)
        for one in passes:
            other = _against(passes, one)
            if other is not None:
                ratio = _ratio(one.times_faster_than(other))
                explored.append(
                    (title, _what(one), one.implementation, text.seconds(one.seconds), ratio, _than(one, other))
                )
    parts: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        ("## Graphs", ("graph", "origin", "law", "vertices", "edges", "features", "largest degree"),
         [(g.name, f"{g.origin}: {g.note}", g.law, f"{g.vertices:,}", f"{g.edges:,}", f"{g.features:,}",
           f"{g.largest_degree:,}") for g in found.graphs]),
        ("## Models", ("graph", "model", "first", "sums", "time", "in aggregation", "of its roofline",
                       "of combination's"), models),
        ("## Explorations", ("what", "this", "sums", "time", "times faster", "than"), explored),
        ("## Simulated hits of neighbours' rows", ("graph", "vertices", "edges", *(f"{rows} rows" for rows in _ROWS)),
         [(one.graph, one.vertex_order, one.edge_order, *_hits(one)) for one in found.localities]),
        ("## Which statements hold here", ("kind", "statement", "verdict", "what was seen"),
         [(one.kind, one.statement, one.verdict, one.evidence) for one in found.checks]),
        ("## Advice", ("about", "what to do"), [(one.about, one.text) for one in found.advice]),
    ]  # fmt: skip
    return "\n".join(f"{title}\n\n{_rows(head, rows)}" for title, head, rows in parts)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def attained(found: GcnCharacterization, one: Timed, phase: str) -> float | None:
    """Share of what this machine's roofline allows the phase, None where it has no work or takes no time."""
    flop, moved = one.work(phase)
    seconds = one.of(phase)
    if not flop or not moved or not seconds:
        return None
    bound = min(found.device.peak("float32"), found.device.memory_bandwidth_b_s.value * flop / moved)
    return flop / seconds / bound


def _print_graphs(console: Console, found: GcnCharacterization) -> None:
    table = _table("graphs", ("graph", "l"), ("origin", "l"), ("law", "l"), ("vertices", "r"), ("edges", "r"),
                   ("features", "r"), ("degree", "r"), ("largest", "r"))  # fmt: skip
    used = {one.graph for one in found.timed}
    for graph in (one for one in found.graphs if one.name in used):
        table.add_row(escape(graph.name), escape(f"{graph.origin}: {graph.note}"), graph.law, f"{graph.vertices:,}",
                      f"{graph.edges:,}", f"{graph.features:,}", f"{graph.mean_degree:.1f}",
                      f"{graph.largest_degree:,}")  # fmt: skip
    console.print(table, width=_width(console))


def _print_models(console: Console, found: GcnCharacterization) -> None:
    """One row per model, graph, order and implementation; the shares of a phase over all layers."""
    models = found.group("models")
    if not models:
        return
    title = "models of two layers: each phase's share of the time, and of this machine's roofline"
    columns = (("graph", "l"), ("model", "l"), ("first", "l"), ("sums", "l"), ("time", "r"), ("aggregate", "r"),
               ("FLOP/B", "r"), ("of roof", "r"), ("combine", "r"), ("of roof", "r"))  # fmt: skip
    table = _table(title, *columns)
    for one in models:
        intensity = one.intensity("aggregation")
        table.add_row(
            escape(one.graph), one.model, one.order.removesuffix("-first"), one.implementation,
            text.seconds(one.seconds),
            text.percent(one.share("aggregation")), text.NOT_KNOWN if intensity is None else f"{intensity:.2f}",
            text.percent(attained(found, one, "aggregation")), text.percent(one.share("combination")),
            text.percent(attained(found, one, "combination")),
        )  # fmt: skip
    console.print(table, width=_width(console))
    told = (
        "FLOP/B: FLOP for each byte that aggregation moves when every neighbour's row comes from memory. More than "
        "100 % of the roofline means that many rows came from a cache"
    )
    _say(console, Text(told, style="dim"))


def _print_explored(console: Console, found: GcnCharacterization) -> None:
    """Every exploration as a table of its passes, each against the first of its graph and model."""
    for group, title in _EXPLORED.items():
        passes = found.group(group)
        if not passes:
            continue
        table = _table(title, ("graph", "l"), ("model", "l"), ("what", "l"), ("sums", "l"), ("time", "r"),
                       ("edges/s", "r"), ("faster [sessions]", "r"), ("than", "l"))  # fmt: skip
        for one in passes:
            other = _against(passes, one)
            ratio = _ratio(one.times_faster_than(other)) if other is not None else ""
            than = "" if other is None else _than(one, other)
            table.add_row(escape(one.graph), one.model, escape(_what(one)), one.implementation,
                          text.seconds(one.seconds),
                          format_count(one.edges / one.seconds), ratio, escape(than))  # fmt: skip
        console.print(table, width=_width(console))


def _against(passes: Sequence[Timed], one: Timed) -> Timed | None:
    """What a pass is compared with: the other order, CSR at the same width, or the first of its kind."""
    if one.group == "widths":
        return only(passes, widths=one.widths, order="aggregate-first") if one.order == "combine-first" else None
    if one.group == "features":
        scatter = only(passes, widths=one.widths, implementation="scatter")
        plain = only(passes, widths=one.widths, implementation="csr")
        return {"csr": scatter, "tiled": plain}.get(one.implementation)
    first = only(passes, model=one.model, implementation=one.implementation, widths=one.widths)
    if one.group in ("vertex-order", "batch", "fan-out", "fusion", "law") and first is not one:
        return first
    return None


def _what(one: Timed) -> str:
    return one.detail if one.order in ("", one.detail) else f"{one.detail}, {one.order}"


def _than(one: Timed, other: Timed) -> str:
    if one.order != other.order:
        return other.order
    return other.implementation if one.implementation != other.implementation else (
        other.detail if one.detail != other.detail else other.graph
    )  # fmt: skip


def _print_localities(console: Console, found: GcnCharacterization) -> None:
    if not found.localities:
        return
    columns = (("graph", "l"), ("vertices", "l"), ("edges", "l"), *((f"{rows} rows", "r") for rows in _ROWS))
    table = _table("simulated hits of neighbours' rows, LRU (most used rows pinned)", *columns)
    for one in found.localities:
        table.add_row(escape(one.graph), one.vertex_order, one.edge_order, *_hits(one))
    console.print(table, width=_width(console))


def _hits(one: Locality) -> list[str]:
    """'LRU (pinned)' at each of the card's capacities."""
    pairs = [one.at(rows) for rows in _ROWS]
    return ["no edges" if lru is None or pinned is None else f"{lru:.3f} ({pinned:.3f})" for lru, pinned in pairs]


def _print_checks(console: Console, title: str, checks: Sequence[Check]) -> None:
    if not checks:
        return
    table = _table(f"{title}: do they hold here?", ("statement", "l"), ("verdict", "l"), ("what was seen", "l"))
    for one in checks:
        table.add_row(escape(one.statement), Text(one.verdict, style=_STYLES[one.verdict]), escape(one.evidence))
    console.print(table, width=_width(console))


def _ratio(ratio: Ratio) -> str:
    return f"{text.times(ratio.value)} [{ratio.low:.3g}, {ratio.high:.3g}]"


def _table(title: str, *columns: tuple[str, str]) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, side in columns:
        table.add_column(Text(name), justify="right" if side == "r" else "left", overflow="fold")
    return table


def _say(console: Console, words: Text) -> None:
    console.print(words, width=_width(console), highlight=False)


def _width(console: Console) -> int:
    return min(console.width, _WIDTH)
