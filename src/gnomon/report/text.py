"""Numbers as people read them. An interval always goes with its value; what is not known says so and is never 0."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gnomon.core.stats import Interval
from gnomon.core.units import format_bytes, format_count, format_seconds
from gnomon.forecast.record import Estimate

NOT_MEASURED = "not measured"
NOT_KNOWN = "not known"
TIMES = "\N{MULTIPLICATION SIGN}"


class Shown(NamedTuple):
    """A number as text, and its interval as text: '12.3 ms' and '[12.1, 12.6]'."""

    value: str
    interval: str

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".rstrip()


def seconds(value: float | None, missing: str = NOT_MEASURED) -> str:
    return missing if value is None else format_seconds(value).replace(" us", " µs")


def byte_count(value: float | None, missing: str = NOT_KNOWN) -> str:
    return missing if value is None else format_bytes(value)


def flop_count(value: float | None, missing: str = NOT_KNOWN) -> str:
    return missing if value is None else format_count(value, "FLOP")


def per_second(value: float | None, unit: str, missing: str = NOT_KNOWN) -> str:
    """'1.2 TFLOP/s', '34 GB/s' (powers of 1000, as data sheets use)."""
    return missing if value is None else format_count(value, f"{unit}/s")


def joules(value: float | None, missing: str = NOT_KNOWN) -> str:
    """'3.1 J', '12 mJ'."""
    if value is None:
        return missing
    return format_count(value, "J") if value >= 1 or value == 0 else f"{1000 * value:.3g} mJ"


def percent(fraction: float | None, missing: str = NOT_MEASURED) -> str:
    """'12.3 %'; a share that rounds to nothing but is something reads '< 0.1 %'."""
    if fraction is None:
        return missing
    if 0 < fraction < 0.001:
        return "< 0.1 %"
    return f"{100 * fraction:.1f} %" if abs(fraction) < 0.9995 else f"{100 * fraction:.0f} %"


def times(value: float | None, missing: str = NOT_KNOWN) -> str:
    """A ratio, with the sign of multiplication: two and a half times."""
    if value is None:
        return missing
    return f"{value:.0f}{TIMES}" if value >= 100 else f"{value:.3g}{TIMES}"


def number(value: float | None, missing: str = NOT_MEASURED) -> str:
    """A quality metric, a cosine: four significant digits."""
    return missing if value is None else f"{value:.4g}"


def fact(value: object) -> str:
    """A fact of a machine, whatever its type: nested tables and lists on one line, None said in words."""
    if value is None:
        return NOT_KNOWN
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {fact(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(fact(item) for item in value) or "none"
    return str(value)


def shape(sizes: Sequence[int] | None) -> str:
    """Sizes with the sign of multiplication between them; a scalar is '()'."""
    if sizes is None:
        return NOT_KNOWN
    return TIMES.join(str(size) for size in sizes) or "()"


def shapes(all_sizes: Sequence[Sequence[int]]) -> str:
    return ", ".join(shape(sizes) for sizes in all_sizes) or "no tensors"


def between(value: float, low: float | None, high: float | None, show: Callable[[float], str], n: int = 1) -> Shown:
    """A value with its ends; a unit that all three share is said once. Without ends it says why there are none."""
    if low is None or high is None:
        return Shown(show(value), "[one session: no interval]" if n == 1 else "[interval not known]")
    texts = [show(number) for number in (value, low, high)]
    units = {text.partition(" ")[2] for text in texts}
    low_text, high_text = (text.partition(" ")[0] if len(units) == 1 else text for text in texts[1:])
    return Shown(texts[0], f"[{low_text}, {high_text}]")


def interval(estimate: Interval | None, show: Callable[[float], str] = seconds) -> Shown:
    """A measured number with its confidence interval."""
    if estimate is None:
        return Shown(NOT_MEASURED, "")
    return between(estimate.value, estimate.low, estimate.high, show, estimate.n)


def ratio(estimate: Interval | None) -> Shown:
    """A speed-up with its interval."""
    return interval(estimate, times)


def share(estimate: Interval | None) -> Shown:
    """A fraction with its interval: '3.2 % [1.1, 5.4]'."""
    return interval(estimate, percent)


def estimate(forecast: Estimate) -> Shown:
    """A forecast time with its interval."""
    return between(forecast.value_s, forecast.low_s, forecast.high_s, seconds)


def spread(values: Sequence[float], show: Callable[[float], str] = seconds) -> Shown:
    """The median of a few sessions with their least and largest: a range, not a confidence interval."""
    if not values:
        return Shown(NOT_MEASURED, "")
    if len(values) == 1:
        return between(values[0], None, None, show)
    return between(middle(values), min(values), max(values), show)


def middle(values: Sequence[float]) -> float:
    """The median. Raises IndexError for no values."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
