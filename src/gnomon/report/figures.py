"""The report's pictures, drawn with matplotlib as SVG text that takes its colours from the page around it.

One unit of the drawing is one CSS pixel. Colours are CSS variables with a fallback, so that a picture follows the page
into dark mode and still reads alone. The same record gives the same bytes. Where matplotlib is missing these functions
raise NotRunnable.
"""

import functools
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec

from gnomon.core.errors import NotRunnable
from gnomon.core.stats import Interval, RatioTest
from gnomon.devices.device import Device
from gnomon.forecast.record import Forecast
from gnomon.measure.analyses.join import OperatorRow
from gnomon.measure.record import LevelRun
from gnomon.report import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

P = ParamSpec("P")

WIDE, NARROW = 1060, 360  # pixels: a desk, a telephone

# Matplotlib knows no CSS variables: it draws with these stand-ins, which are replaced in the SVG.
_COLOURS: Mapping[str, tuple[str, str, str]] = {  # name: (stand-in, variable of the page, colour when alone)
    "ink": ("#010203", "--ink", "#23262d"),
    "muted": ("#010204", "--muted", "#6b6f78"),
    "line": ("#010205", "--line", "#dcd9d0"),
    "accent": ("#010206", "--accent", "#b4540a"),
    "shadow": ("#010207", "--shadow", "#2f5d86"),
    "good": ("#010208", "--good", "#2c7a4b"),
    "bad": ("#010209", "--bad", "#b3372f"),
    "paper": ("#01020a", "--paper", "#ffffff"),
}
_CATEGORY_COLOURS: Mapping[str, tuple[str, str, str]] = {
    name: (f"#0304{number:02x}", f"--c-{name}", colour)
    for number, (name, colour) in enumerate(
        {
            "matmul": "#2f5d86", "convolution": "#4b4fa8", "attention": "#1b8a8a", "normalization": "#8a4fa0",
            "softmax": "#b0447c", "elementwise": "#c98a12", "reduction": "#c4622d", "gather": "#4f8a3c",
            "copy": "#7f7a6d", "view": "#a9a598", "random": "#8f6b4a", "optimizer": "#a83f3f", "pooling": "#3f7fa8",
            "sort": "#6d7f3f", "unknown": "#555555",
        }.items()
    )
}  # fmt: skip
_VERDICT_COLOURS = {"kept": "good", "refused": "bad", "failed": "bad", "not applicable": "muted", "reference": "muted"}


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Run a drawing function with the room's settings; matplotlib's own are as before afterwards."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            import matplotlib
        except ImportError as error:
            raise NotRunnable(f"pictures need matplotlib: {error}. Get it with: pip install matplotlib") from error
        settings: Any = {
            "font.family": "sans-serif",
            "font.size": 12,
            "svg.fonttype": "none",
            "svg.hashsalt": "gnomon",
            "text.parse_math": False,  # a task may be called '$x$'
        }
        with matplotlib.rc_context(settings):
            return draw(*args, **kwargs)

    return drawn


@_styled
def latency(run: LevelRun, percentiles: Mapping[str, Interval], width: int = WIDE) -> str:
    """Every timed call: one row of points per session above, the cumulative share of calls below, same time axis.

    run: the untraced run. percentiles: 'p50', 'p90', 'p99', drawn as lines with their intervals shaded.
    """
    sessions = [session.wall_s for session in run.sessions if session.wall_s]
    rows = len(sessions)
    figure = _figure(width, 190 + 16 * rows)
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [40 + 16 * rows, 120]})
    for row, walls in enumerate(sessions):
        jitter = [0.22 * math.sin(12.9898 * (i + 1)) for i in range(len(walls))]  # spreads equal times, the same always
        top.scatter(walls, [row + j for j in jitter], s=16, color=_c("shadow"), alpha=0.55, linewidths=0)
        bottom.step(sorted(walls), [(i + 1) / len(walls) for i in range(len(walls))], where="post",
                    color=_c("shadow"), alpha=0.7, linewidth=1.2)  # fmt: skip
    for name in ("p50", "p90", "p99"):
        found = percentiles.get(name)
        if found is None:
            continue
        for axes in (top, bottom):
            if found.low is not None and found.high is not None:
                axes.axvspan(found.low, found.high, color=_c("accent"), alpha=0.09, linewidth=0)
            axes.axvline(found.value, color=_c("accent"), linewidth=1.2)
        top.annotate(name, (found.value, 1), (3, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                     color=_c("accent"), va="bottom", rotation=0 if width > 500 else 90)  # fmt: skip
    top.set_yticks(range(rows), [f"session {row + 1}" if width > 500 else str(row + 1) for row in range(rows)])
    top.set_ylim(rows - 0.4, -0.6)
    bottom.set_ylim(0, 1.02)
    bottom.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    bottom.set_ylabel("calls")
    bottom.set_xlabel("wall time of one call")
    _seconds_axis(bottom, 5 if width > 500 else 3)
    calls = sum(map(len, sessions))
    return _svg(figure, "latency", width, f"Wall time of {calls} timed calls in {rows} sessions, with percentiles.")


@_styled
def roofline(rows: Sequence[OperatorRow], device: Device, dtype: str, width: int = WIDE) -> str:
    """Operators on this machine's measured roofline: arithmetic intensity against attained FLOP/s, both logarithmic.

    Area of a point: its share of the operators' time.
    Operators without FLOP or without memory traffic have no place; those below 0.1 % of the time are left out.
    """
    points = [row for row in rows if row.intensity and row.flop_s and row.share >= 0.001]
    figure = _figure(width, 400 if width > 500 else 340)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    bandwidth = device.memory_bandwidth_b_s.value
    peaks = {f"{dtype} peak": device.peak_flop_s.get(dtype) or device.peak_flop_s.get("float32")}
    peaks["vector peak"] = device.vector_flop_s.get(dtype) or device.vector_flop_s.get("float32")
    levels = {name: quantity.value for name, quantity in peaks.items() if quantity is not None}
    if len(levels) == 2 and min(levels.values()) > 0.95 * max(levels.values()):
        levels.popitem()  # one line and one label where the two would lie on each other
    intensities = [row.intensity or 1.0 for row in points] + [peak / bandwidth for peak in levels.values()]
    low, high = min(intensities, default=1) / 3, max(intensities, default=1) * 4
    highest = max(levels.values(), default=high * bandwidth)
    axes.plot([low, highest / bandwidth], [low * bandwidth, highest], color=_c("ink"), linewidth=1.4)
    name = f"memory {text.per_second(bandwidth, 'B')}"
    middle = low**0.35 * (highest / bandwidth) ** 0.65  # where the axis leaves room for the label
    axes.annotate(
        name, (middle, middle * bandwidth), (-8, 4), textcoords="offset points", color=_c("muted"), ha="right"
    )
    for (label, peak), dashed in zip(levels.items(), ("-", "--"), strict=False):
        axes.plot([peak / bandwidth, high], [peak, peak], color=_c("ink"), linewidth=1.4, linestyle=dashed)
        axes.annotate(f"{label} {text.per_second(peak, 'FLOP')}", (high, peak), (-2, 4), textcoords="offset points",
                      color=_c("muted"), ha="right", va="bottom")  # fmt: skip
    tips = {}
    for number, row in enumerate(points):
        point = axes.scatter([row.intensity or 1], [row.flop_s or 1], s=_area(row), alpha=0.75,
                             color=_category(row.category), edgecolors=_c("paper"), linewidths=1, zorder=3)  # fmt: skip
        point.set_gid(f"operator-{number}")
        tips[f"operator-{number}"] = (
            f"{row.name} {text.shapes(row.shapes)}\n{text.seconds(row.time_s)} per step, {row.calls} calls\n"
            f"{text.per_second(row.flop_s, 'FLOP')} at {row.intensity:.3g} FLOP/B, "
            f"{text.times(row.distance)} the roofline's time"
        )
    labelled = sorted(points, key=lambda row: -row.share)[: 5 if width > 500 else 3]
    for label, row in {row.name: row for row in reversed(labelled)}.items():
        away, is_left = math.sqrt(_area(row) / math.pi) + 4, (row.intensity or 1) > math.sqrt(low * high)
        axes.annotate(_short(label, 24 if width > 500 else 12), (row.intensity or 1, row.flop_s or 1),
                      (-away if is_left else away, 0), ha="right" if is_left else "left", va="center",
                      textcoords="offset points", color=_c("ink"), zorder=4)  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_xlabel("arithmetic intensity in FLOP per byte")
    axes.set_ylabel("attained")
    _log_axis(axes.xaxis, low, high, lambda value: f"{value:g}")
    _log_axis(axes.yaxis, low * bandwidth, highest, lambda value: text.per_second(value, "FLOP"))
    told = f"Roofline of {device.name} with {len(points)} operators; the table of operators holds the same numbers."
    return _svg(figure, "roofline", width, told, tips)


@_styled
def forecasts(ranked: Sequence[Forecast], here: str, measured: Interval | None, width: int = WIDE) -> str:
    """One row per device: forecast and interval on a logarithmic time axis. measured: on `here`, drawn as a diamond."""
    figure = _figure(width, 64 + 22 * len(ranked))
    axes = figure.subplots()
    axes.set_xscale("log")
    tips = {}
    for row, forecast in enumerate(ranked):
        total, marked = forecast.total, forecast.device == here
        colour = _c("accent" if marked else "shadow" if forecast.fits else "muted")
        axes.plot([total.low_s, total.high_s], [row, row], color=colour, linewidth=5, alpha=0.28,
                  solid_capstyle="round")  # fmt: skip
        point = axes.scatter([total.value_s], [row], s=46, color=colour if forecast.fits else _c("paper"),
                             edgecolors=colour, linewidths=1.4, zorder=3)  # fmt: skip
        point.set_gid(f"device-{row}")
        shown = text.between(total.value_s, total.low_s, total.high_s, text.seconds, 0)
        tips[f"device-{row}"] = f"{forecast.device}: {shown}, bound by {forecast.bound}"
        if marked and measured is not None:
            axes.scatter([measured.value], [row], s=60, marker="D", color=_c("ink"), zorder=4)
        if width > 500:
            label = forecast.bound if forecast.fits else "does not fit in memory"
            axes.annotate(label, (total.high_s, row), (9, 0), textcoords="offset points", va="center",
                          color=_c("muted"))  # fmt: skip
    names = [f"{f.device} (here)" if f.device == here else f.device for f in ranked]
    axes.set_yticks(range(len(ranked)), [_short(name, 34 if width > 500 else 17) for name in names])
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    low = min((f.total.low_s for f in ranked), default=1e-3)
    high = max((f.total.high_s for f in ranked), default=1.0)
    axes.set_xlim(low / 1.3, high * ((high / low) ** 0.2 if width > 500 else 1.3))
    axes.set_xlabel("time of one step, forecast")
    _log_axis(axes.xaxis, low, high, text.seconds)
    axes.xaxis.grid(True, color=_c("line"), linewidth=0.8)
    told = f"Forecast time of one step on {len(ranked)} devices with intervals; the table below holds the same numbers."
    return _svg(figure, "forecasts", width, told, tips)


@_styled
def ratios(found: Mapping[str, RatioTest], verdicts: Mapping[str, str], baseline: str, width: int = WIDE) -> str:
    """One row per recipe: how many times as fast as the baseline, with interval, on a logarithmic axis."""
    ordered = sorted(found, key=lambda name: -found[name].speedup.value)
    figure = _figure(width, 66 + 28 * len(ordered))
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.axvline(1, color=_c("ink"), linewidth=1.2)
    for row, name in enumerate(ordered):
        speedup, verdict = found[name].speedup, verdicts.get(name, "reference")
        colour = _c(_VERDICT_COLOURS[verdict])
        axes.plot([1, speedup.value], [row, row], color=colour, linewidth=9, alpha=0.16, solid_capstyle="butt")
        if speedup.low is not None and speedup.high is not None:
            axes.plot([speedup.low, speedup.high], [row, row], color=colour, linewidth=2.4)
        axes.scatter([speedup.value], [row], s=46, color=colour, zorder=3)
        right = speedup.value >= 1
        edge = (speedup.high if right else speedup.low) or speedup.value
        label = text.times(speedup.value) + (f"  {verdict}" if width > 500 else "")
        axes.annotate(label, (edge, row), (9 if right else -9, 0), textcoords="offset points", va="center",
                      ha="left" if right else "right", color=_c("muted"))  # fmt: skip
    axes.set_yticks(range(len(ordered)), [_short(name, 30 if width > 500 else 15) for name in ordered])
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    values = [1.0, *(value for name in ordered for value in _ends(found[name].speedup))]
    least, most = min(values), max(values)
    room = max(most / least, 1.2) ** (0.12 if width > 500 else 0.4)  # for the labels beside the points
    axes.set_xlim(least / (room if least < 1 else 1.03), most * (room if most > 1 else 1.03))
    _log_axis(axes.xaxis, least, most, text.times)
    axes.set_xlabel(f"speed, {baseline} = {text.times(1)}")
    axes.xaxis.grid(True, color=_c("line"), linewidth=0.8)
    told = f"Speed of {len(ordered)} variants against {baseline}; the table below holds the same numbers."
    return _svg(figure, "recipes", width, told)


def _area(row: OperatorRow) -> float:
    """Area of an operator's point in square pixels; the constant keeps the small ones visible."""
    return 40 + 1500 * row.share


def _ends(interval: Interval) -> list[float]:
    return [value for value in (interval.value, interval.low, interval.high) if value is not None]


def _c(name: str) -> str:
    return _COLOURS[name][0]


def _category(name: str) -> str:
    return _CATEGORY_COLOURS.get(name, _CATEGORY_COLOURS["unknown"])[0]


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _figure(width: int, height: int) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def _ticks(show: Callable[[float], str]) -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: show(value) if value > 0 else "0")


def _log_axis(axis: "Axis", low: float, high: float, show: Callable[[float], str]) -> None:
    """Marks at powers of ten; over a short range between them too, so that no axis stays without a number."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if high / low > 4:
        axis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0), numticks=20))
    else:
        axis.set_major_locator(MaxNLocator(5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(_ticks(show))


def _seconds_axis(axes: "Axes", marks: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(marks))
    axes.xaxis.set_major_formatter(_ticks(text.seconds))


def _svg(figure: "Figure", name: str, width: int, told: str, tips: Mapping[str, str] | None = None) -> str:
    """The figure as SVG text for a page: ids of its own, colours of the page, a title, a tooltip per named part."""
    for axes in figure.axes:
        axes.patch.set_visible(False)
        axes.tick_params(which="both", color=_c("line"), labelcolor=_c("ink"), length=4)
        axes.xaxis.label.set_color(_c("muted"))
        axes.yaxis.label.set_color(_c("muted"))
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_c("line"))
    figure.patch.set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    body = body[body.index(">", body.index("<svg")) + 1 :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)  # would hold for the whole page
    body = re.sub(r"font-family: [^;]*; ", "", body)  # the page's own
    for stand_in, variable, alone in (*_COLOURS.values(), *_CATEGORY_COLOURS.values()):
        body = body.replace(stand_in, f"var({variable}, {alone})")
    prefix = f"{name}-{width}-"
    body = body.replace(' id="', f' id="{prefix}').replace('href="#', f'href="#{prefix}')
    body = body.replace("url(#", f"url(#{prefix}")
    for part, tip in (tips or {}).items():
        opening = f'<g id="{prefix}{part}">'
        body = body.replace(opening, f"{opening}<title>{escape(tip)}</title>")
    body = re.sub(r">\s*\n\s*<", ">\n<", body).strip()
    height = round(figure.get_figheight() * 72)
    return (
        f'<svg role="img" aria-label="{escape(told)}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" stroke-linejoin="round" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )
