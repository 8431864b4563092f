"""Batch x device x dtype: where a task runs fastest or cheapest, and which devices a forecast cannot tell apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from gnomon.core.errors import UsageError
from gnomon.core.records import record
from gnomon.core.units import format_bytes
from gnomon.devices.device import Device
from gnomon.forecast.dtypes import captured_in
from gnomon.forecast.predict import Forecaster
from gnomon.forecast.record import Estimate, Host
from gnomon.forecast.rental import Prices
from gnomon.forecast.scale import at_batches
from gnomon.forecast.setting import Setting, check_sizes, forecaster
from gnomon.workload.graph import OpGraph

Objective = Literal["latency", "throughput", "cost"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput", "cost")
_HOUR_S = 3600


class Sizes(NamedTuple):
    """What a graph is captured at; None: as the task says."""

    batch: int
    seqlen: int | None
    dtype: str | None


@dataclass(frozen=True, slots=True)
class Range:
    """A number with the interval that should hold the truth nine times in ten."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """One step on one device. time None: the device cannot run it, `why_not` says why.

    throughput: samples (or tokens, see `Sweep.unit`) per second. cost: price of a million of them, None without a
    price. fits: whether the step's memory does; what does not fit is forecast all the same.
    """

    device: str
    dtype: str
    batch: int
    seqlen: int | None
    time: Estimate | None
    throughput: Range | None
    cost: Range | None
    peak_memory_bytes: float
    memory_bytes: float
    fits: bool
    bound: str
    why_not: str = ""


@record("sweep", 1)
@dataclass(frozen=True, slots=True)
class Sweep:
    """All points, device by device. unit: what throughput and cost count.

    captured: how many graphs were captured; the others follow from them exactly. currency: of the prices, '' without.
    """

    task: str
    mode: str
    host: Host
    predictor: str
    unit: Literal["samples", "tokens"]
    points: tuple[Point, ...]
    captured: int
    currency: str = ""
    prices_from: str = ""


class Answer(NamedTuple):
    """best: the point that wins. rivals: the best point of every device that cannot be told apart from it."""

    objective: Objective
    best: Point
    rivals: tuple[Point, ...]


def sweep(
    capture: Callable[[Sizes], OpGraph],
    devices: Sequence[Device],
    *,
    batches: Sequence[int],
    seqlens: Sequence[int] = (),
    dtypes: Sequence[str] = (),
    length: int | None = None,
    setting: Setting | None = None,
    prices: Prices | None = None,
) -> Sweep:
    """Forecast every combination. capture: the graph at some sizes; it is called for as few batches as settle the rest.

    seqlens, dtypes: none means the task's own. length: tokens of a sample when no seqlens are given, None for a task
    without tokens. A device that lacks a dtype and a model that does not fit are points that say so.
    Raises UsageError when there is nothing to sweep and when no size is positive.
    """
    setting = setting or Setting()
    if not batches or not devices:
        raise UsageError(f"wanted at least one batch and one device, got {len(batches)} and {len(devices)}")
    if min([*batches, *seqlens]) < 1:
        raise UsageError(f"wanted batches and lengths of at least 1, got {min([*batches, *seqlens])}")
    if setting.is_parallel:
        raise UsageError("a sweep is over single devices; forecast one task with --tensor-parallel and the like")
    found: list[Point] = []
    captured, predictor = 0, ""
    name, mode = "", ""
    for base, priced in _by_capture(dtypes or (setting.dtype,)).items():
        for seqlen in seqlens or (None,):

            def at(batch: int, seqlen: int | None = seqlen, base: str | None = base) -> OpGraph:
                nonlocal captured
                captured += 1
                graph = capture(Sizes(batch, seqlen, base))
                check_sizes(graph)
                return graph

            tokens = seqlen or length
            for batch, graph in at_batches(batches, at).items():
                name, mode = graph.name, graph.mode
                for dtype in priced:
                    ready = forecaster(graph, replace(setting, dtype=dtype), batch=batch)
                    for device in devices:
                        point, by = _point(ready, device, dtype or _own(graph), batch, tokens, prices)
                        found.append(point)
                        predictor = by or predictor
    places = {device.name: i for i, device in enumerate(devices)}
    return Sweep(
        task=name,
        mode=mode,
        host=setting.host,
        predictor=predictor,
        unit="tokens" if seqlens or length else "samples",
        points=tuple(sorted(found, key=lambda p: (places[p.device], p.dtype, p.seqlen or 0, p.batch))),
        captured=captured,
        currency=prices.currency if prices is not None else "",
        prices_from=prices.source if prices is not None else "",
    )


def _by_capture(dtypes: Sequence[str | None]) -> dict[str | None, list[str | None]]:
    """Dtypes by the one that the model is captured in for them: float32 and tf32 share their graphs."""
    groups: dict[str | None, list[str | None]] = {}
    for dtype in dict.fromkeys(dtypes):
        groups.setdefault(captured_in(dtype), []).append(dtype)
    return groups


def _point(
    ready: Forecaster, device: Device, dtype: str, batch: int, tokens: int | None, prices: Prices | None
) -> tuple[Point, str]:
    """One forecast as a point, and which predictor made it ('' when the device cannot run it)."""
    try:
        one = ready.on(device)
    except UsageError as error:
        has = device.memory_bytes.value
        fits = ready.peak_bytes <= has
        return Point(
            device.name, dtype, batch, tokens, None, None, None, ready.peak_bytes, has, fits, "unknown", str(error)
        ), ""
    rate = _rate(batch * (tokens or 1), one.total)
    why = "" if one.fits else f"needs {format_bytes(one.peak_memory_bytes)} of {format_bytes(one.memory_bytes)}"
    cost = _cost(device, rate, prices)
    return Point(
        device.name, one.dtype, batch, tokens, one.total, rate, cost, one.peak_memory_bytes, one.memory_bytes, one.fits,
        one.bound, why,
    ), one.predictor  # fmt: skip


def _own(graph: OpGraph) -> str:
    """The dtype that a graph was captured in."""
    return next((t.dtype for t in graph.tensors if t.role == "parameter" and "float" in t.dtype), "float32")


def _rate(count: int, time: Estimate) -> Range | None:
    if time.low_s <= 0:
        return None
    return Range(count / time.value_s, count / time.high_s, count / time.low_s)


def _cost(device: Device, rate: Range | None, prices: Prices | None) -> Range | None:
    """Price of a million samples or tokens."""
    per_hour = None if prices is None else prices.per_hour.get("cpu" if device.kind == "cpu" else device.name)
    if per_hour is None or rate is None:
        return None
    per_million = 1e6 * per_hour / _HOUR_S
    return Range(per_million / rate.value, per_million / rate.high, per_million / rate.low)


def value_of(point: Point, objective: Objective) -> Range | None:
    """What the objective is about; None when the point has none or does not fit. Higher throughput is better."""
    if not point.fits or point.time is None:
        return None
    if objective == "latency":
        return Range(point.time.value_s, point.time.low_s, point.time.high_s)
    return point.throughput if objective == "throughput" else point.cost


def best_by_device(points: Sequence[Point], objective: Objective) -> list[Point]:
    """The best point of every device that can run the task, best device first."""
    best: dict[str, tuple[float, Point]] = {}
    for point in points:
        value = value_of(point, objective)
        if value is None:
            continue
        badness = -value.value if objective == "throughput" else value.value
        if point.device not in best or badness < best[point.device][0]:
            best[point.device] = (badness, point)
    return [point for _, point in sorted(best.values(), key=lambda pair: (pair[0], pair[1].device))]


def answer(points: Sequence[Point], objective: Objective) -> Answer:
    """Which device to take. Devices whose interval overlaps the best one's are rivals: a forecast cannot tell.

    Raises UsageError when no device can run any of the points, and for a cost without a price of any that can.
    """
    ranked = best_by_device(points, objective)
    if not ranked:
        if objective == "cost" and best_by_device(points, "latency"):
            raise UsageError("no device that can run the task has a price. Give some with --prices FILE.yaml")
        reasons = list(dict.fromkeys(f"{p.device}: {p.why_not}" for p in points))
        raise UsageError("no device can run the task: " + "; ".join(reasons[:5]))
    best = ranked[0]
    top = _known(best, objective)
    rivals = [p for p in ranked[1:] if _overlap(top, _known(p, objective))]
    return Answer(objective, best, tuple(rivals))


def _known(point: Point, objective: Objective) -> Range:
    value = value_of(point, objective)
    assert value is not None  # it was ranked
    return value


def _overlap(a: Range, b: Range) -> bool:
    return a.low <= b.high and b.low <= a.high


def sizes_in(text: str) -> tuple[int, ...]:
    """'1,2,4' or '1..64' (doubling) -> sizes in order. Raises UsageError."""
    sizes: list[int] = []
    for part in text.split(","):
        first, dots, last = (half.strip() for half in part.partition(".."))
        if not first.isdecimal() or (dots and not last.isdecimal()) or int(first) < 1:
            raise UsageError(f"wanted sizes such as 1,2,4 or 1..64 (doubling), got {text[:60]!r}")
        low, high = int(first), int(last) if dots else int(first)
        if high < low:
            raise UsageError(f"wanted sizes that grow, got {part.strip()[:60]!r}")
        while low <= high:
            sizes.append(low)
            low *= 2
    return tuple(sorted(set(sizes)))
