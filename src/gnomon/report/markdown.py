"""A run as Markdown: for issues, pull requests and wikis. Numbers have their unit, and their interval if known."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from gnomon.core.stats import Interval
from gnomon.forecast.record import Forecast
from gnomon.measure.record import SPAN_LEVELS, Measurement, Trace
from gnomon.report import text

_ROWS = 15  # of layers and operators; the tables of `gnomon export --format csv` have all


def markdown(title: str, records: Iterable[Any]) -> str:
    """Sections for the measurements, traces and forecasts among `records`; others are left out."""
    parts = [f"# {_plain(title)}"]
    forecasts = []
    for record in records:
        if isinstance(record, Measurement):
            parts += _measurement(record)
        elif isinstance(record, Trace):
            parts += _trace(record)
        elif isinstance(record, Forecast):
            forecasts.append(record)
    if forecasts:
        parts += _forecasts(forecasts)
    return "\n\n".join(parts) + "\n"


def _measurement(m: Measurement) -> list[str]:
    e = m.environment
    facts = [
        ("task", f"`{_plain(m.task)}` ({_plain(m.variant)}, {m.mode})"),
        ("batch", f"{m.batch} ({', '.join(f'{name}={size}' for name, size in m.dims.items())})"),
        ("device", f"{_plain(e.device)}, {e.threads} threads"),
        ("machine", _plain(str(e.machine.get("cpu", text.NOT_KNOWN)))),
        ("software", ", ".join(f"{name} {version}" for name, version in [("Python", e.python), *e.packages.items()])),
        ("measured", e.started_at),
        ("throughput", f"{m.throughput_per_s:.4g} per second"),
    ]
    latency = [
        (name, *_seconds(m.latency[name]), *(_seconds(m.cpu_latency[name]) if name in m.cpu_latency else ("", "")))
        for name in m.latency
    ]
    parts = [f"## Measurement of {_plain(m.task)}", _table(("", "value"), facts)]
    parts += ["### Latency of a call", _table(("statistic", "wall", "interval", "CPU", "interval"), latency)]
    overheads = [(r.level, f"{100 * r.overhead.value:.1f} %") for r in m.levels if r.overhead is not None]
    if overheads:
        parts += ["### What tracing costs", _table(("level", "longer than untraced"), overheads)]
    if m.layers:
        layers = sorted(m.layers, key=lambda x: -x.self_cpu_s)
        rows = [(f"`{x.path or '(model)'}`", x.type, str(x.calls), _s(x.cpu_s), _s(x.self_cpu_s)) for x in layers]
        parts += ["### Layers", _longest(("layer", "type", "calls", "CPU", "CPU of its own"), rows)]
    if m.operators:
        operators = sorted(m.operators, key=lambda o: -o.cpu_s)
        rows = [(f"`{o.name}`", f"`{o.module}`", str(o.calls), _s(o.wall_s), _s(o.cpu_s)) for o in operators]
        parts += ["### Operators", _longest(("operator", "module", "calls", "wall", "CPU"), rows)]
    return parts + _warnings(m.warnings)


def _trace(t: Trace) -> list[str]:
    counts: dict[str, int] = defaultdict(int)
    by_name: dict[tuple[str, str], list[float]] = defaultdict(list)
    for span in t.spans:
        counts[span.level] += 1
        by_name[span.level, span.name].append(span.wall_s)
    rows = [(level, str(counts[level])) for level in SPAN_LEVELS if counts[level]]
    longest = sorted(by_name.items(), key=lambda item: -sum(item[1]))
    names = [(level, f"`{name}`", str(len(walls)), _s(sum(walls))) for (level, name), walls in longest]
    parts = [f"## Trace {_plain(t.name)}", f"Imported from {_plain(t.origin)}.", _table(("level", "spans"), rows)]
    return [*parts, _longest(("level", "name", "calls", "wall"), names), *_warnings(t.warnings)]


def _forecasts(forecasts: Sequence[Forecast]) -> list[str]:
    rows = [
        (
            _plain(f.device),
            _s(f.total.value_s),
            f"{_s(f.total.low_s)} to {_s(f.total.high_s)}",
            f.bound,
            text.byte_count(f.peak_memory_bytes),
            "yes" if f.fits else "no",
        )
        for f in forecasts
    ]
    return ["## Forecasts", _table(("device", "step", "nine in ten", "bound", "memory", "fits"), rows)]


def _warnings(warnings: Sequence[str]) -> list[str]:
    return ["### Warnings", "\n".join(f"- {_plain(warning)}" for warning in warnings)] if warnings else []


def _seconds(value: Interval) -> tuple[str, str]:
    if value.low is None or value.high is None:
        return _s(value.value), "none: one session"
    return _s(value.value), f"{_s(value.low)} to {_s(value.high)}"


def _s(value: float) -> str:
    return text.seconds(value)


def _longest(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    left_out = len(rows) - _ROWS
    table = _table(names, rows[:_ROWS])
    return f"{table}\n\n{left_out} more are in the tables of `--format csv`." if left_out > 0 else table


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *([cell.replace("|", "\\|").replace("\n", " ") for cell in r] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: str) -> str:
    """Text that Markdown prints as it is."""
    return "".join(f"\\{c}" if c in "\\`*_<>[]#" else c for c in value.replace("\n", " "))
