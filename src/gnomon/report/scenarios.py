"""Results under load as tables in the terminal."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gnomon.core.units import format_bytes, format_seconds
from gnomon.measure.scenarios.result import ScenarioResult
from gnomon.measure.scenarios.search import QpsSearch
from gnomon.measure.scenarios.training import TrainingResult
from gnomon.report import text

_STYLES = {"VALID": "green", "INVALID": "red", "reached": "green", "not-reached": "red"}
_WIDTH = 100


def print_result(console: Console, result: ScenarioResult | QpsSearch | TrainingResult) -> None:
    """Whichever of the three it is."""
    if isinstance(result, QpsSearch):
        print_search(console, result)
    elif isinstance(result, TrainingResult):
        print_training(console, result)
    else:
        print_scenario(console, result)


def print_scenario(console: Console, result: ScenarioResult) -> None:
    """Verdict with each condition, percentiles with intervals, throughput, how late queries were issued."""
    r = result
    _say(console, Text(f"{r.sut}  {r.scenario.name}: "), Text(r.verdict, style=_STYLES[r.verdict]))
    for one in r.conditions:
        mark, hint = ("met", "") if one.is_met else ("MISSED", f". Hint: {one.hint}")
        _say(console, Text(f"- {one.name} {mark}: {one.reason}{hint}", style="" if one.is_met else "yellow"))
    for warning in r.warnings:
        _say(console, Text(f"! {warning}", style="yellow"))
    what = "per query" if r.scenario.name == "multi-stream" else "per sample"
    table = _table(f"latency {what}, {r.queries} queries, {r.samples} samples", "", "latency", "95 % interval")
    for name, interval in r.latency.items():
        table.add_row(name, text.seconds(interval.value), _ends(interval.low, interval.high))
    console.print(table, width=min(console.width, _WIDTH))
    early = r.early_stopping
    if early is not None and early.estimate_s is not None:
        _say(console, Text(
            f"early stopping: the {early.percentile * 100:g}th percentile is at most "
            f"{format_seconds(early.estimate_s)} at {early.confidence:.0%} confidence "
            f"({early.discarded} slowest queries left out)"
        ))  # fmt: skip
    if r.samples_per_s is not None:
        _say(console, Text(f"throughput: {r.samples_per_s:.4g} samples/s over {format_seconds(r.duration_s)}"))
    if r.scenario.name == "server":
        lag = r.lag
        _say(console, Text(
            f"issued late by {format_seconds(lag.p50_s)} (median), {format_seconds(lag.p99_s)} (99th percentile), "
            f"{format_seconds(lag.largest_s)} (largest); latency counts from when a query was due"
        ))  # fmt: skip


def print_search(console: Console, search: QpsSearch) -> None:
    """The runs of a search in the order in which they were made, and what came of it."""
    p = search.scenario.bound_percentile * 100
    table = _table(f"{search.sut}: search", "queries/s", "verdict", f"{p:g}th percentile", "queries", "above the bound")
    for one in search.trials:
        verdict = "VALID" if one.is_valid else "INVALID"
        table.add_row(
            f"{one.qps:.4g}", Text(verdict, style=_STYLES[verdict]), text.seconds(one.target_s), str(one.queries),
            str(one.over_latency),
        )  # fmt: skip
    console.print(table, width=min(console.width, _WIDTH))
    _say(console, Text(f"{search.outcome}: ", style="bold"), Text(search.said))


def print_training(console: Console, result: TrainingResult) -> None:
    """Steps per second with interval, the loss at both ends, the target, memory."""
    r = result
    _say(console, Text(r.task, style="bold"), Text("  training: "), Text(r.outcome, style=_STYLES.get(r.outcome, "")))
    _say(console, Text(r.said))
    table = _table("training", "", "value", "95 % interval")
    rate = r.steps_per_s
    ends = "" if rate.low is None or rate.high is None else f"[{rate.low:.4g}, {rate.high:.4g}]"
    table.add_row("steps per second", f"{rate.value:.4g}", escape(ends))
    table.add_row("samples per second", f"{r.samples_per_s:.4g}", "")
    for name, value in r.step_s.items():
        table.add_row(f"step, {name}", text.seconds(value), "")
    table.add_row("loss, first and last step", f"{r.loss_curve[0].value:.4g}, {r.loss_curve[-1].value:.4g}", "")
    for point in r.quality_curve[-1:]:
        table.add_row("quality at the end", f"{point.value:.4g}", "")
    table.add_row("peak memory", format_bytes(r.peak_rss_bytes), "")
    console.print(table, width=min(console.width, _WIDTH))


def _ends(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "not known"
    shown = [text.seconds(low, missing="not known"), text.seconds(high, missing="not known")]
    return escape(f"[{shown[0]}, {shown[1]}]")


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(Text(name), justify="right")
    return table


def _say(console: Console, *parts: Text) -> None:
    console.print(Text.assemble(*parts), width=min(console.width, _WIDTH), highlight=False)
