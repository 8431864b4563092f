"""Forecast of a whole step: operators priced one by one, the host that launches them, memory, and one interval."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gnomon.core.errors import UsageError
from gnomon.core.units import format_bytes
from gnomon.devices.device import Device
from gnomon.forecast.calibration import Calibrated, Calibration
from gnomon.forecast.dtypes import resized
from gnomon.forecast.predictors import Gnomon, Predictor, price_all
from gnomon.forecast.price import NINE_IN_TEN, Efficiency, Price, spread
from gnomon.forecast.record import Bound, Estimate, Forecast, Host, OpForecast
from gnomon.forecast.work import Work, works
from gnomon.workload.graph import OpGraph
from gnomon.workload.memory import peak

# Time the host needs to issue one eager operator (Python, dispatcher, launch). Ours: PyTorch's own is 3-6 us on a fast
# core, a Transformers module adds as much; a view stays on the host.
DISPATCH_S = Efficiency(7e-6, 3e-6, 15e-6)
VIEW_S = Efficiency(2e-6, 1e-6, 4e-6)


class Launching(NamedTuple):
    """Host time of one kernel, of one view, and of one step before its first kernel."""

    kernel: Efficiency
    view: Efficiency
    step: Efficiency


_NOTHING = Efficiency(0.0, 0.0, 0.0)
# Ours, from the order of magnitude of public traces. A compiled wrapper has no dispatcher, but checks its guards once a
# step. A CUDA graph is launched once; the device then starts its kernels by itself, about one a microsecond.
LAUNCHING: Mapping[Host, Launching] = {
    "eager": Launching(DISPATCH_S, VIEW_S, _NOTHING),
    "compiled": Launching(Efficiency(4e-6, 2e-6, 8e-6), _NOTHING, Efficiency(15e-6, 5e-6, 40e-6)),
    "cuda-graph": Launching(Efficiency(1e-6, 0.5e-6, 2e-6), _NOTHING, Efficiency(10e-6, 5e-6, 30e-6)),
}


class _Timeline(NamedTuple):
    total_s: float
    waiting_s: float  # the device has nothing to do because the host has not launched it yet


def forecast(
    graph: OpGraph,
    device: Device,
    *,
    dtype: str | None = None,
    batch: int = 0,
    dims: Mapping[str, int] | None = None,
    predictor: Predictor | None = None,
    host: Host = "eager",
    calibration: Calibration | None = None,
) -> Forecast:
    """How long one step of `graph` takes on `device`, with a 90 % interval and what bounds every operator.

    dtype: price floating-point work in this dtype instead of the graph's own. batch, dims: sizes the graph was captured
    at, copied into the record. predictor: ours when not given. host: how kernels are launched; a compiled step also
    wants a fused graph (`forecast.fusion`). calibration: kernels measured on the device, which correct the predictor.
    Raises UsageError when the device cannot compute in a precision that the graph needs, has no CUDA graphs, or is not
    the one that was calibrated.
    For many devices make one `Forecaster`.
    """
    forecaster = Forecaster(
        graph, dtype=dtype, batch=batch, dims=dims, predictor=predictor, host=host, calibration=calibration
    )
    return forecaster.on(device)


class Forecaster:
    """One graph on many devices: what does not depend on the device is worked out once. Arguments as for `forecast`."""

    def __init__(
        self,
        graph: OpGraph,
        *,
        dtype: str | None = None,
        batch: int = 0,
        dims: Mapping[str, int] | None = None,
        predictor: Predictor | None = None,
        host: Host = "eager",
        calibration: Calibration | None = None,
    ) -> None:
        if host not in LAUNCHING:
            raise UsageError(f"wanted a host out of {', '.join(LAUNCHING)}; got {host!r}")
        self._calibrated = Calibrated(calibration, predictor) if calibration is not None else None
        self._predictor: Predictor = self._calibrated or predictor or Gnomon()
        self._host = host
        self._graph, self._dtype, self._batch, self._dims = graph, dtype, batch, dict(dims or {})
        self._demands = works(graph, dtype)
        places: dict[Work, int] = {}  # layers are alike: each demand is priced once
        self._which = [places.setdefault(work, len(places)) for work in self._demands]
        self._distinct = list(places)
        self._is_view = [work.category == "view" for work in self._demands]
        self._digest, self._flop, self._unknown = graph.digest, graph.flop, graph.unknown
        self._peak_bytes = peak(resized(graph, dtype)).peak_bytes

    @property
    def peak_bytes(self) -> float:
        """Memory that the step holds at its worst moment."""
        return self._peak_bytes

    def on(self, device: Device) -> Forecast:
        """The forecast for one device. Raises UsageError when it lacks a precision that the graph needs."""
        demands, is_view = self._demands, self._is_view
        if self._host == "cuda-graph" and device.kind == "cpu":
            raise UsageError(f"{device.name} is a CPU, which has no CUDA graphs; leave out --cuda-graph")
        launching = self._launching()
        once = price_all(self._predictor, self._distinct, device)
        prices = [once[i] for i in self._which]
        common = self._predictor.common_spread(device)
        total = _total(device, prices, [w.category for w in demands], is_view, launching, common)
        shares = _bound_shares(device, prices, is_view, launching)
        main = _main_precision(demands, device)
        capacity = device.memory_bytes.value
        warnings = [f"{n} x {name}: no cost rule; counted as memory traffic" for name, n in self._unknown.items()]
        warnings += self._predictor.remarks(device)
        if self._peak_bytes > capacity:
            warnings.append(f"does not fit: needs {format_bytes(self._peak_bytes)} of {format_bytes(capacity)}")
        return Forecast(
            task=self._graph.name,
            graph_digest=self._digest,
            device=device.name,
            predictor=self._predictor.name,
            dtype=self._dtype or main,
            mode=self._graph.mode,
            batch=self._batch,
            dims=self._dims,
            total=total,
            bound=max(shares, key=lambda name: shares[name]) if shares else "launch",
            bound_shares={str(name): share for name, share in shares.items()},
            ops=tuple(
                OpForecast(i, op.name, op.module, op.phase, op.category, p.time, p.bound)
                for i, (op, p) in enumerate(zip(self._graph.ops, prices, strict=True))
            ),
            flop=self._flop,
            mfu=self._flop / (total.value_s * device.peak(main)) if total.value_s > 0 else 0.0,
            peak_memory_bytes=self._peak_bytes,
            memory_bytes=capacity,
            fits=self._peak_bytes <= capacity,
            unknown_ops=self._unknown,
            warnings=tuple(warnings),
            host=self._host,
            energy_bound_j=device.tdp_w.value * total.value_s if device.tdp_w is not None else None,
            calibration=self._calibrated.calibration.title if self._calibrated is not None else "",
        )

    def _launching(self) -> Launching:
        """Host times: measured ones for an eager step when there is a calibration."""
        if self._calibrated is None or self._host != "eager":
            return LAUNCHING[self._host]
        phases = [op.phase for op, view in zip(self._graph.ops, self._is_view, strict=True) if not view]
        kernel = self._calibrated.dispatch(phases, self._graph.mode)
        return Launching(kernel, self._calibrated.view(), _NOTHING)


def _bound_shares(
    device: Device, prices: Sequence[Price], is_view: Sequence[bool], launching: Launching
) -> dict[Bound, float]:
    """Share of the step by what limits it; time in which the device waits for the host is the launch's."""
    timeline = _run(device, [p.time.value_s for p in prices], is_view, *(e.value for e in launching))
    seconds: dict[Bound, float] = defaultdict(float)
    for p in prices:
        seconds[p.bound] += p.time.value_s
    seconds["launch"] += timeline.waiting_s
    whole = math.fsum(seconds.values())
    return {name: value / whole for name, value in sorted(seconds.items()) if value > 0}


def _total(
    device: Device,
    prices: Sequence[Price],
    categories: Sequence[str],
    is_view: Sequence[bool],
    launching: Launching,
    common: float,
) -> Estimate:
    """The step and its interval: errors of one category go together, those of different categories do not.

    common: standard deviation, as a logarithm, of what all operators share.
    """
    by_category: dict[str, list[Price]] = defaultdict(list)
    for price, category in zip(prices, categories, strict=True):
        by_category[category].append(price)
    times = [price.time for price in prices]
    device_s = math.fsum(t.value_s for t in times)
    variance = common**2 + sum((_deviation_s(group) / device_s) ** 2 for group in by_category.values() if device_s > 0)
    factor = math.exp(NINE_IN_TEN * math.sqrt(variance))

    def run(scale: float, end: str) -> float:
        return _run(device, [t.value_s * scale for t in times], is_view, *(getattr(e, end) for e in launching)).total_s

    least = math.fsum(t.low_s for t in times)  # not even every operator at its best goes below
    return Estimate(
        run(1.0, "value"),
        max(run(1 / factor, "low"), least),
        run(factor, "high"),
    )


def _deviation_s(prices: Sequence[Price]) -> float:
    """Standard deviation of the sum of one category's times. Equal prices are the same kernel and err together."""
    alike: dict[Estimate, int] = Counter(price.time for price in prices)
    shared = {price.time: price.shared for price in prices}
    together, apart = 0.0, 0.0
    for time, count in alike.items():
        whole = spread(time)
        common = shared[time]
        if common is None:
            common = whole
        seconds = count * time.value_s
        together += seconds * min(common, whole)
        apart += seconds**2 * max(whole**2 - common**2, 0.0)
    return math.sqrt(together**2 + apart)


def _run(
    device: Device,
    device_s: Sequence[float],
    is_view: Sequence[bool],
    dispatch_s: float,
    view_s: float,
    step_s: float,
) -> _Timeline:
    """Two queues: the host issues in order and never waits; the device starts a kernel when both are ready.

    On a CPU the host is the device, and the two times add up.
    """
    if not device_s:
        return _Timeline(0.0, 0.0)
    on_cpu = device.kind == "cpu"
    host, end, waiting = step_s, step_s if on_cpu else 0.0, step_s if on_cpu else 0.0
    for seconds, view in zip(device_s, is_view, strict=True):
        issue = view_s if view else dispatch_s
        if on_cpu:
            end += issue + seconds
            waiting += issue
            continue
        host += issue
        if not view:
            waiting += max(0.0, host - end)
            end = max(host, end) + seconds
    return _Timeline(max(host, end), waiting)


def _main_precision(demands: Sequence[Work], device: Device) -> str:
    """The precision that most of the arithmetic is in, for the utilisation figure."""
    totals: dict[str, float] = defaultdict(float)
    for work in demands:
        totals[work.precision] += work.flop or 0.0
    main = max(totals, key=lambda name: totals[name]) if totals else "float32"
    return main if main in device.peak_flop_s else "float32"
