"""The report as one HTML file that loads nothing from outside, works without JavaScript and prints."""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gnomon.core.errors import NotRunnable
from gnomon.forecast.record import Forecast
from gnomon.measure.analyses import join
from gnomon.measure.record import Measurement
from gnomon.measure.spread import of_measurement
from gnomon.report import figures, flame, text, verdict
from gnomon.report.examination import Examination, faults_per_call, headlines, machine, median_of, quality_cost, sizes
from gnomon.report.files import write_text
from gnomon.report.templates import render_template


def write(examination: Examination, path: Path) -> Path:
    """Write the report to `path` in one step and return it. Raises NotRunnable when the place cannot be written."""
    return write_text(path, render(examination))


def render(examination: Examination) -> str:
    """The whole report as HTML text. Without matplotlib it has notes in the place of pictures."""
    e, m = examination, examination.measurement
    operators, layers, ranked = e.operators(), e.layers(), e.ranked_forecasts()
    untraced, here, median = e.level("model"), e.here(), m.latency.get("p50")
    floor = join.floor(operators)
    inside: dict[int | None, list[int]] = defaultdict(list)
    for index, layer in enumerate(layers):
        inside[layer.parent].append(index)
    categories = {join.base_name(op.name): op.category for op in e.graph.ops}
    chart = flame.svg(m.spans, categories)
    met = Counter(r.category for r in flame.rectangles(m.spans, categories))
    ratios = {c.recipe: c.speedup for c in e.changes if c.speedup is not None}
    ratios |= {name: test for name, test in (e.comparison.ratios if e.comparison else {}).items() if name not in ratios}
    verdicts = {c.recipe: c.verdict for c in e.changes}
    baseline = e.changes[0].baseline if e.changes else e.comparison.baseline if e.comparison else "eager"
    timed = untraced is not None and any(session.wall_s for session in untraced.sessions)
    pictures = {
        "latency": _drawn(lambda w: figures.latency(untraced, m.latency, w)) if untraced and timed else (),
        "roofline": _drawn(lambda w: figures.roofline(operators, e.device, e.task.dtype, w)) if operators else (),
        "forecasts": _drawn(lambda w: figures.forecasts(ranked, e.device.name, median, w)) if ranked else (),
        "recipes": _drawn(lambda w: figures.ratios(ratios, verdicts, baseline, w)) if ratios else (),
    }
    parts = [
        ("compute", "least time for arithmetic", floor.compute_s),
        ("memory", "least time for memory traffic", floor.memory_s),
        ("excess", "above the roofline", floor.excess_s),
        ("unknown", "operators without a cost rule", floor.uncosted_s),
    ]
    unknown: dict[str, int] = {}
    for forecast in ranked:
        unknown |= forecast.unknown_ops
    return render_template(
        "report.html",
        e=e,
        m=m,
        headlines=headlines(e),
        warnings=e.all_warnings(),
        machine=machine(e),
        sizes=sizes(m.dims, m.batch),
        p50=text.interval(median),
        best=e.best_change(),
        fastest=e.fastest_forecast(),
        quality_cost=quality_cost,
        floor=floor,
        floor_parts=[part for part in parts if part[2] > 0],
        floor_total=sum(part[2] for part in parts) or 1.0,
        shares=join.category_shares(operators),
        pictures=pictures,
        timed=timed,
        throughput=_throughput(m),
        sources=[
            (name, e.device.sources.get(quantity.source, quantity.source))
            for name, quantity in (*e.device.peak_flop_s.items(), ("memory", e.device.memory_bandwidth_b_s))
        ],
        cold={key: median_of(untraced, key) for key in ("import_s", "build_s", "first_call_s")},
        warmup=text.spread([s.warmup_calls for s in untraced.sessions] if untraced else [], text.number),
        peak_rss=text.spread([s.peak_rss_bytes for s in untraced.sessions] if untraced else [], text.byte_count),
        faults=faults_per_call(untraced),
        layers=layers,
        inside=inside,
        operators=operators,
        flame=Markup(chart),
        flame_categories=[category for category, _ in met.most_common()],
        ranked=ranked,
        here=here,
        held=bool(here and median and here.total.low_s <= median.value <= here.total.high_s),
        spread=verdict.spread(of_measurement(m)) if untraced else "",
        against_here=lambda f: _against_here(f, e),
        bounds_met=sorted({what for f in ranked for what in f.bound_shares}),
        unknown_ops=unknown,
        changes=sorted(e.changes, key=lambda c: -(c.speedup.speedup.value if c.speedup else 0.0)),
        others=list(dict.fromkeys(name for c in e.changes for name in c.against)),
        ratios=ratios,
        baseline=baseline,
        detectable=max((r.detectable for r in ratios.values() if r.detectable is not None), default=None),
    )


def _throughput(measurement: Measurement) -> text.Shown:
    """Inputs per second with the interval of the mean latency."""
    rate, mean = measurement.throughput_per_s, measurement.latency.get("mean")

    def show(value: float) -> str:
        return f"{value:.3g} inputs per second"

    if mean is None or mean.low is None or mean.high is None:
        return text.between(rate, None, None, show, mean.n if mean else 0)
    return text.between(rate, rate * mean.value / mean.high, rate * mean.value / mean.low, show)


def _drawn(draw: Callable[[int], str]) -> tuple[Markup, ...]:
    """A picture for a desk and one for a telephone; none where matplotlib is missing."""
    try:
        return tuple(Markup(draw(width)) for width in (figures.WIDE, figures.NARROW))
    except NotRunnable:
        return ()


def _against_here(forecast: Forecast, examination: Examination) -> text.Shown:
    """How many times as fast as measured here, over the forecast's interval."""
    median: Any = examination.measurement.latency.get("p50")
    if median is None:
        return text.Shown(text.NOT_MEASURED, "")
    total = forecast.total
    value, low, high = (median.value / seconds for seconds in (total.value_s, total.high_s, total.low_s))
    return text.between(value, low, high, text.times, 0)
