"""Records as tables in the terminal: 100 columns are enough, and without a terminal it is plain text."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gnomon.core.stats import Interval
from gnomon.forecast.record import Estimate, Forecast
from gnomon.measure.analyses import join
from gnomon.measure.record import Comparison, Measurement
from gnomon.measure.same import SameCheck
from gnomon.measure.spread import of_measurement
from gnomon.report import gate, text, verdict
from gnomon.report.counters import print_counters, print_stages
from gnomon.report.examination import Examination, faults_per_call, headlines, median_of, sizes
from gnomon.report.gate import Gate
from gnomon.report.kernels import print_kernels
from gnomon.report.stored import StoredComparison
from gnomon.sharpen.record import Change

_WIDTH = 100
_ENDS = ("value_s", "low_s", "high_s")
_STYLES = {"kept": "green", "refused": "red", "failed": "red", "faster": "green", "slower": "red"}


def print_examination(console: Console, examination: Examination, path: Path | None = None) -> None:
    """The examination in short. path: where the full report is, named at the end."""
    e, m = examination, examination.measurement
    _say(console, Text(e.task.name, style="bold"), Text(f"  {e.task.description}"))
    for sentence in headlines(e):
        _say(console, Text(f"- {sentence}"))
    for warning in e.all_warnings():
        _say(console, Text(f"! {warning}", style="yellow"))
    _print_latency(console, m)
    _print_layers(console, m)
    _print_operators(console, e.operators())
    if e.forecasts:
        _print_forecasts(console, e.ranked_forecasts(), m.latency.get("p50"), e.device.name)
    if e.changes:
        print_changes(console, e.changes)
    elif e.comparison is not None:
        print_comparison(console, e.comparison)
    _say(console, Text(f"again: {e.command}" if e.command else f"run {e.run_id}"))
    if path is not None:
        _say(console, Text("report: ", style="bold"), Text(str(path)))


def print_measurement(console: Console, measurement: Measurement) -> None:
    """Latency with intervals, cold start, and the longest layers and operators where these were measured."""
    m = measurement
    threads = f"{m.environment.threads} thread{'s' if m.environment.threads != 1 else ''}"
    _say(console, Text(m.task, style="bold"), Text(f"  {m.variant}, {m.mode}, {sizes(m.dims, m.batch)}, {threads}"))
    for warning in m.warnings:
        _say(console, Text(f"! {warning}", style="yellow"))
    _print_latency(console, m)
    untraced = next((run for run in m.levels if run.level == "model"), None)
    table = _table("cold start", ("", "l"), ("median [least, largest]", "r"))
    for name, key in (("import", "import_s"), ("build the model", "build_s"), ("first call", "first_call_s")):
        table.add_row(name, str(median_of(untraced, key)))
    table.add_row("page faults per call", text.number(faults_per_call(untraced)))
    console.print(table, width=_width(console))
    print_stages(console, m.stages)
    print_counters(console, m.counters)
    _print_layers(console, m)
    if m.operators:
        total = math.fsum(one.cpu_s for one in m.operators)
        by_name: dict[str, list[float]] = {}
        for one in m.operators:
            calls_and_time = by_name.setdefault(join.base_name(one.name), [0, 0.0])
            calls_and_time[0] += one.calls
            calls_and_time[1] += one.cpu_s
        table = _table("operators", ("operator", "l"), ("calls", "r"), ("CPU time", "r"), ("share", "r"))
        for name, (calls, cpu_s) in sorted(by_name.items(), key=lambda item: -item[1][1])[:10]:
            share = text.percent(cpu_s / total if total else None)
            table.add_row(_cell(name), f"{calls:.0f}", text.seconds(cpu_s), share)
        console.print(table, width=_width(console))
    print_kernels(console, m.spans)


def print_forecasts(console: Console, forecasts: Sequence[Forecast], measured: Measurement | None = None) -> None:
    """Fastest first, those that do not fit last. measured: a measurement of the same task to compare with."""
    ranked = sorted(forecasts, key=lambda f: (not f.fits, f.total.value_s, f.device))
    _print_forecasts(console, ranked, measured.latency.get("p50") if measured else None, None)


def print_forecast_operators(console: Console, forecast: Forecast, most: int = 10) -> None:
    """The operators that take longest on one device, calls of one name in one kind of module together."""
    groups: dict[tuple[str, str, str], list[Estimate]] = {}
    for op in forecast.ops:
        key = (join.base_name(op.name), join.module_pattern([op.module]), op.bound)
        groups.setdefault(key, []).append(op.time)
    # calls of one kind err together, so their ends add up as their times do
    rows = [
        (key, len(times), Estimate(*(math.fsum(getattr(t, end) for t in times) for end in _ENDS)))
        for key, times in groups.items()
    ]
    total = math.fsum(time.value_s for _, _, time in rows)
    columns = (("operator", "l"), ("module", "l"), ("calls", "r"), ("time", "r"), ("90 % interval", "r"),
               ("share", "r"), ("bound", "l"))  # fmt: skip
    table = _table(f"operators on {forecast.device}", *columns)
    for (name, module, bound), calls, time in sorted(rows, key=lambda row: -row[2].value_s)[:most]:
        shown = text.estimate(time)
        table.add_row(_cell(name), _cell(_tail(module)), str(calls), shown.value, shown.interval,
                      text.percent(time.value_s / total if total else None), bound)  # fmt: skip
    console.print(table, width=_width(console))
    if len(rows) > most:
        _say(console, Text(f"and {len(rows) - most} more; --operators {len(rows)} lists all"))


def print_changes(console: Console, changes: Sequence[Change]) -> None:
    """Recipes tried, fastest first: speed with interval, quality before and after, verdict and reason."""
    baseline = changes[0].baseline if changes else "eager"
    columns = (
        ("recipe", "l"),
        ("verdict", "l"),
        (f"speed ({baseline} = {text.times(1)})", "r"),
        ("quality", "l"),
        ("cosine", "r"),
    )
    table = _table("recipes", *columns)
    for change in sorted(changes, key=lambda c: -(c.speedup.speedup.value if c.speedup else 0.0)):
        quality = [
            f"{metric} {text.number(before)} → {text.number(change.quality_after.get(metric))}"
            for metric, before in change.quality_before.items()
            if metric in change.quality_after
        ]
        table.add_row(
            _cell(change.recipe),
            Text(change.verdict, style=_STYLES.get(change.verdict, "dim")),
            str(text.ratio(change.speedup.speedup if change.speedup else None)),
            _cell("\n".join(quality) or text.NOT_MEASURED),
            text.number(change.distance.mean_cosine if change.distance else None),
        )
    console.print(table, width=_width(console))
    for change in changes:
        against = [f"{text.ratio(test.speedup)} against {name}" for name, test in change.against.items()]
        _say(console, Text(f"{change.recipe}: ", style="bold"), Text("; ".join([change.reason, *against])))


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Variants timed interleaved: median time of each, speed against the baseline, verdict."""
    c = comparison
    columns = (
        ("variant", "l"),
        ("sessions", "r"),
        ("median", "r"),
        (f"speed ({c.baseline} = {text.times(1)})", "r"),
        ("verdict", "l"),
    )
    table = _table(f"{c.task}, {c.clock} time", *columns)
    for variant in c.variants:
        medians = [text.middle(s.wall_s if c.clock == "wall" else s.cpu_s) for s in variant.sessions if s.wall_s]
        test = c.ratios.get(variant.name)
        said = "baseline" if variant.name == c.baseline else verdict.verdict(test) if test else text.NOT_MEASURED
        speed = (
            str(text.ratio(test.speedup))
            if test
            else text.times(1)
            if variant.name == c.baseline
            else text.NOT_MEASURED
        )
        table.add_row(_cell(variant.name), str(len(variant.sessions)), str(text.spread(medians)), speed,
                      Text(said, style=_STYLES.get(said, "dim")))  # fmt: skip
    console.print(table, width=_width(console))
    for name, test in c.ratios.items():
        _say(console, Text(f"{verdict.sentence(name, c.baseline, test)} {verdict.cannot_see(test)}"))
    for variant in c.variants:
        if variant.failure:
            _say(console, Text(f"{variant.name} failed: ", style="red"), Text(variant.failure))
    for warning in c.warnings:
        _say(console, Text(f"! {warning}", style="yellow"))


def print_stored_comparison(console: Console, stored: StoredComparison) -> None:
    """The ratio of two stored measurements, and what else differs between them."""
    style = _STYLES.get(stored.ratio.verdict, "yellow")
    _say(console, Text(verdict.sentence(stored.second, stored.first, stored.ratio), style=style))
    _say(console, Text(verdict.cannot_see(stored.ratio)))
    for warning in stored.warnings:
        _say(console, Text(f"! {warning}", style="yellow"))
    if stored.differences:
        table = _table("what differs", ("", "l"), (stored.first, "l"), (stored.second, "l"))
        for key, (first, second) in stored.differences.items():
            table.add_row(_cell(key), _cell(first), _cell(second))
        console.print(table, width=_width(console))
    if len(stored.aspects) > 1:
        warning = f"! {', '.join(stored.aspects)} differ at once: the ratio cannot be laid to one of them"
        _say(console, Text(warning, style="yellow"))


def print_gate(console: Console, found: Gate) -> None:
    """The answer of a gate, what else differs from the baseline, and warnings."""
    first, *rest = gate.sentences(found)
    _say(console, Text(first, style="green" if found.passed else "red"))
    for line in rest:
        _say(console, Text(line))
    for warning in found.warnings:
        _say(console, Text(f"! {warning}", style="yellow"))
    if found.differences:
        table = _table("what differs", ("", "l"), ("baseline", "l"), ("now", "l"))
        for key, (there, here) in found.differences.items():
            table.add_row(_cell(key), _cell(there), _cell(here))
        console.print(table, width=_width(console))


def print_same_check(console: Console, found: SameCheck) -> None:
    """How often a task differed from itself, and what its sessions spread by."""
    wrong = round(found.different.value * found.trials)
    _say(console, Text(f"{found.task} compared with itself: {wrong} of {found.trials} trials found a difference "
                       f"{text.share(found.different).interval}, {found.equal} found none within "
                       f"{verdict.percent(found.margin)}"))  # fmt: skip
    _say(console, Text(f"all sessions together: {verdict.sentence('A again', 'A', found.overall)}"))
    table = _table("standard deviations", ("", "l"), ("value", "r"), ("95 % interval", "r"))
    paired = "of one session's ratio" if found.pairs == "calls" else "of the ratio of a pair of processes"
    for name, spread in ((paired, found.ratio_spread), ("between sessions", found.between)):
        shown = text.share(spread)
        table.add_row(name, shown.value, shown.interval)
    console.print(table, width=_width(console))
    seen = ", ".join(f"{verdict.percent(found.detectable(n))} with {n}" for n in (3, 5, 10, 20))
    _say(console, Text(f"smallest difference that sessions find here (80 % power): {seen}"))
    for warning in found.warnings:
        _say(console, Text(f"! {warning}", style="yellow"))


def print_spread(console: Console, m: Measurement) -> None:
    """What sessions differ by, and the error below which no forecast of this measurement can be scored."""
    _say(console, Text(verdict.spread(of_measurement(m)), style="dim"))


def _print_latency(console: Console, m: Measurement) -> None:
    table = _table("latency of one call", ("", "l"), ("wall time", "r"), ("CPU time", "r"))
    for key in ("p50", "p90", "p99", "mean"):
        table.add_row(key, str(text.interval(m.latency.get(key))), str(text.interval(m.cpu_latency.get(key))))
    console.print(table, width=_width(console))
    print_spread(console, m)
    overheads = [
        f"{run.level} {text.share(run.overhead)}"
        + (f" of which {text.percent(run.taken_out.value)} is taken out" if run.taken_out is not None else "")
        for run in m.levels
        if run.level != "model"
    ]
    if overheads:
        _say(console, Text(f"tracing costs: {', '.join(overheads)}", style="dim"))


def _print_layers(console: Console, m: Measurement) -> None:
    """Modules of one kind at places that differ only in numbers are one row."""
    if not m.layers:
        return
    total = math.fsum(layer.self_cpu_s for layer in m.layers)
    kinds: dict[tuple[str, str], list[float]] = {}
    for layer in m.layers:
        times = kinds.setdefault((join.module_pattern([layer.path]), layer.type), [])
        times.append(layer.self_cpu_s)
    columns = (("module", "l"), ("type", "l"), ("modules", "r"), ("CPU time", "r"), ("share", "r"))
    table = _table("layers, without what is inside them", *columns)
    for (path, kind), times in sorted(kinds.items(), key=lambda item: -math.fsum(item[1]))[:8]:
        cpu_s = math.fsum(times)
        share = text.percent(cpu_s / total if total else None)
        table.add_row(_cell(path), _cell(kind), str(len(times)), text.seconds(cpu_s), share)
    console.print(table, width=_width(console))


def _print_operators(console: Console, rows: Sequence[join.OperatorRow]) -> None:
    if not rows:
        return
    columns = (("operator", "l"), ("shapes", "l"), ("calls", "r"), ("CPU time", "r"), ("share", "r"), ("attained", "r"),
               ("distance", "r"))  # fmt: skip
    table = _table("operators; distance: times the least time of this machine's roofline", *columns)
    for row in rows[:6]:
        shapes, attained = text.shapes(row.shapes), text.per_second(row.flop_s, "FLOP")
        table.add_row(_cell(row.name), _cell(shapes), str(row.calls), text.seconds(row.cpu_s), text.percent(row.share),
                      attained, text.times(row.distance))  # fmt: skip
    console.print(table, width=_width(console))


def _print_forecasts(console: Console, ranked: Sequence[Forecast], measured: Interval | None, here: str | None) -> None:
    columns = (("device", "l"), ("time", "r"), ("90 % interval", "r"), ("bound", "l"), ("MFU", "r"), ("memory", "r"),
               ("energy", "r"))  # fmt: skip
    table = _table(_forecast_title(ranked), *columns)
    for f in ranked:
        time = text.estimate(f.total)
        table.add_row(
            "this machine" if f.device == here else _cell(f.device),
            time.value,
            time.interval,
            f.bound,
            text.percent(f.mfu),
            _memory(f),
            f"\N{LESS-THAN OR EQUAL TO} {text.joules(f.energy_bound_j)}"
            if f.energy_bound_j is not None
            else "not known",
            style="bold" if f.device == here else None,
        )
    console.print(table, width=_width(console))
    if measured is not None:
        _say(console, Text(f"measured here: {text.interval(measured)}", style="bold"))
    unknown = dict(sorted({name: count for f in ranked for name, count in f.unknown_ops.items()}.items()))
    if unknown:
        names = ", ".join(f"{name} ({count})" for name, count in unknown.items())
        _say(console, Text(f"! no cost rule, not in the forecasts: {names}", style="yellow"))
    for warning in dict.fromkeys(warning for f in ranked for warning in f.warnings):
        devices = [f.device for f in ranked if warning in f.warnings]
        named = ", ".join(devices[:4]) + (f" and {len(devices) - 4} more" if len(devices) > 4 else "")
        _say(console, Text(f"! {named}: {warning}", style="yellow"))


def _tail(module: str) -> str:
    """The end of a module's path, which tells what it is; the way there fills the table."""
    parts = module.split(".")
    return module if len(parts) <= 2 else "\N{HORIZONTAL ELLIPSIS}" + ".".join(parts[-2:])


def _forecast_title(forecasts: Sequence[Forecast]) -> str:
    """What the forecasts of one table have in common."""
    if not forecasts:
        return "forecasts"
    ways = {"eager": "", "compiled": ", compiled", "cuda-graph": ", as one CUDA graph"}
    shared = {f"{f.mode} in {f.dtype}{ways[f.host]} ({f.predictor})" for f in forecasts}
    return f"forecast of {forecasts[0].task}: one step, {shared.pop()}" if len(shared) == 1 else "forecasts of one step"


def _memory(f: Forecast) -> Text:
    """'1.2 of 80 GiB', or in red that it does not fit."""
    needed, has = text.byte_count(f.peak_memory_bytes), text.byte_count(f.memory_bytes)
    return Text(f"{needed} of {has}") if f.fits else Text(f"needs {needed} of {has}", style="red")


def _table(title: str, *columns: tuple[str, str]) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, side in columns:
        table.add_column(Text(name), justify="right" if side == "r" else "left", overflow="fold")
    return table


def _cell(value: str) -> str:
    """A name as it is: rich reads nothing in brackets as its markup."""
    return escape(value)


def _say(console: Console, *parts: Text) -> None:
    console.print(Text.assemble(*parts), width=_width(console), highlight=False)


def _width(console: Console) -> int:
    return min(console.width, _WIDTH)
