"""Correct a predictor for the device at hand, from kernels that were measured on it.

The logarithm of measured over predicted time is a Gaussian process with mean 0 (Rasmussen & Williams 2006, chapter 2),
a sum of independent parts: what all kernels of the device share, what a category shares, what an operator shares, and
for category and operator what changes smoothly with size. So the correction is shrunk towards none where there are few
samples, becomes the measured value where there are many, carries over from an operator to its relatives, fades to the
shared part away from the sizes that were measured, and its uncertainty follows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from gnomon.core.digest import digest
from gnomon.core.errors import UsageError
from gnomon.core.records import POSITIVE, record, to_json
from gnomon.devices.device import Device
from gnomon.forecast import cpu
from gnomon.forecast.predictors import Gnomon, Predictor
from gnomon.forecast.price import Efficiency, Price
from gnomon.forecast.record import Estimate
from gnomon.forecast.work import Work

# Standard deviations of the parts, in logarithms: physics alone is right within a factor of 2 for nine in ten kernels.
_DEVICE, _CATEGORY, _OPERATOR = 0.15, 0.20, 0.30
_CATEGORY_SIZE, _OPERATOR_SIZE = 0.20, 0.30
_KERNEL = 0.07  # what a kernel has for itself: alignment, the library's choice of blocks
_SIZE_SCALE = math.log(8.0)  # sizes this far apart know little of each other
_NINE_IN_TEN = 1.645
_DISPATCH_DOUBT = 0.3  # share of the dispatch cost that may be wrong when it is taken off a small kernel
_SLOWED_DOUBT = 0.5  # share of a disturbance that another kernel may have felt less, or more, than the reference
_LEAST_SHARE = 0.02  # of a probe's time that is work, whatever its dispatch takes


@dataclass(frozen=True, slots=True)
class Sample:
    """A kernel that was measured. seconds: one call, dispatch included. noise: relative, of the time.

    views: operators of the call that only make views. disturbance: by how much the machine was slowed at the time.
    """

    name: str
    work: Work
    views: int
    seconds: Annotated[float, POSITIVE]
    noise: float
    disturbance: Annotated[float, POSITIVE] = 1.0


@dataclass(frozen=True, slots=True)
class Host:
    """Seconds of host time per operator, as measured. bare_s: from a loop, taken off the samples. page_s: a fresh page.

    inference_s, forward_s, backward_s, optimizer_s: inside modules, by mode and phase. view_s: a view.
    """

    bare_s: float
    view_s: float
    page_s: float
    inference_s: float
    forward_s: float
    backward_s: float
    optimizer_s: float


@dataclass(frozen=True, slots=True)
class Factor:
    """Measured over predicted time of a category on average, after shrinkage, with a 90 % interval; n samples."""

    category: str
    value: float
    low: float
    high: float
    n: int


@record("calibration", 1)
@dataclass(frozen=True, slots=True)
class Calibration:
    """Kernels measured on a device. device: as it was then, with the peaks that the predictions were made from.

    predictor: which one `factors` correct. factors: the correction by category, for people; forecasts use the samples.
    measured_at: ISO 8601, UTC. elapsed_s: what it took. budget_s: what was asked. clock: 'cpu' time or 'cuda' events.
    reference_s: the reference kernel's time in the machine's usual state, which forecasts are for.
    """

    device: Device
    predictor: str
    measured_at: str
    clock: str
    threads: int
    allocator: str
    versions: Mapping[str, str]
    budget_s: float
    elapsed_s: float
    host: Host
    samples: tuple[Sample, ...]
    factors: tuple[Factor, ...]
    warnings: tuple[str, ...] = ()
    reference_s: float = 0.0

    @property
    def title(self) -> str:
        """Which one it is, in a few words: date and the first letters of its digest."""
        return f"{self.measured_at[:10]} {digest(to_json(self))[7:15]}"


class Correction(NamedTuple):
    """Mean and standard deviation of the logarithm of measured over predicted time, one entry per kernel."""

    mean: np.ndarray
    deviation: np.ndarray


class Fit:
    """What samples say about kernels that were not measured. log_ratios: ln(measured / predicted) of each sample.

    noise: standard deviation of each of them.
    """

    def __init__(self, works: Sequence[Work], log_ratios: Sequence[float], noise: Sequence[float]) -> None:
        self._works = list(works)
        own = np.square(np.asarray(noise, dtype=float)) + _KERNEL**2
        self._root = np.linalg.cholesky(covariance(works, works) + np.diag(own)) if works else np.zeros((0, 0))
        self._weights = self._solve(np.asarray(log_ratios, dtype=float))

    def correct(self, works: Sequence[Work]) -> Correction:
        """For kernels of any size and operator."""
        cross = covariance(self._works, works)
        half = np.linalg.solve(self._root, cross) if self._works else cross
        prior = _DEVICE**2 + _CATEGORY**2 + _OPERATOR**2 + _CATEGORY_SIZE**2 + _OPERATOR_SIZE**2
        left = np.maximum(prior - np.square(half).sum(axis=0), 0.0) + _KERNEL**2
        return Correction(cross.T @ self._weights, np.sqrt(left))

    def average(self, works: Sequence[Work]) -> tuple[float, float]:
        """Mean and deviation of the average correction of these kernels, what each has for itself left out."""
        cross = covariance(self._works, works).mean(axis=1)
        half = np.linalg.solve(self._root, cross)
        left = float(covariance(works, works).mean()) - float(half @ half)
        return float(cross @ self._weights), math.sqrt(max(left, 0.0))

    def _solve(self, values: np.ndarray) -> np.ndarray:
        return np.linalg.solve(self._root.T, np.linalg.solve(self._root, values)) if len(values) else values


def covariance(left: Sequence[Work], right: Sequence[Work]) -> np.ndarray:
    """Prior covariance of the log corrections, one row for each on the left; a kernel's own part is not in it."""
    category = _equal([w.category for w in left], [w.category for w in right])
    operator = _equal([kind(w) for w in left], [kind(w) for w in right])
    apart = _sizes(left)[:, None, :] - _sizes(right)[None, :, :]
    near = np.sqrt(3.0) * np.sqrt(np.square(apart).sum(axis=2)) / _SIZE_SCALE
    smooth = (1 + near) * np.exp(-near)  # Matern 3/2, eq. 4.17
    shared = _DEVICE**2 + category * (_CATEGORY**2 + _CATEGORY_SIZE**2 * smooth)
    total: np.ndarray = shared + operator * (_OPERATOR**2 + _OPERATOR_SIZE**2 * smooth)
    return total


def kind(work: Work) -> str:
    """The operator as far as libraries treat it alike: copies by order, convolutions by what they do with channels."""
    shape = work.convolution
    if shape is None:
        return f"{work.operator} out of order" if work.strided_bytes else work.operator
    if shape.groups > 1:
        return f"{work.operator} {'depthwise' if shape.inputs == 1 else 'grouped'}"
    return f"{work.operator} {'pointwise' if shape.kernel == 1 else 'dense'}"


def _sizes(works: Sequence[Work]) -> np.ndarray:
    """Logarithms of up to five sizes that decide how efficient a kernel is; kinds with other sizes never meet."""
    rows: list[tuple[float, ...]] = []
    for work in works:
        if (m := work.matmul) is not None:
            rows.append((m.batch, m.m, m.n, m.k, 1))
        elif (c := work.convolution) is not None:
            stride = c.source / c.pixels
            rows.append((c.inputs * c.groups, c.outputs * c.groups, c.batch * c.pixels, c.kernel, stride))
        elif (r := work.rows) is not None:
            rows.append((r.rows, r.columns, 1, 1, 1))
        else:
            size = max(work.moved_bytes, 1.0)
            rows.append((size, size / max(work.indices, 1) if work.indices else 1, 1, 1, 1))
    return np.log(np.array(rows, dtype=float).reshape(-1, 5))


def _equal(left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    return np.asarray(left, dtype=str)[:, None] == np.asarray(right, dtype=str)[None, :]


def choose(works: Sequence[Work], cost_s: Sequence[float], budget_s: float) -> list[int]:
    """Which kernels to measure and in which order: greedily what takes most uncertainty off all of them per second.

    works: the candidates. cost_s: time that measuring each takes. Returns indices whose costs sum to at most budget_s.
    """
    remaining = covariance(works, works)
    own = np.diag(remaining).copy()
    cost, left = np.asarray(cost_s, dtype=float), budget_s
    chosen: list[int] = []
    free = np.ones(len(works), dtype=bool)
    while True:
        usable = free & (cost <= left)
        if not usable.any():
            return chosen
        gain = np.square(remaining).sum(axis=1) / (np.diag(remaining) + _KERNEL**2) / cost
        best = int(np.argmax(np.where(usable, gain, -1.0)))
        if remaining[best, best] < 0.02 * own[best]:
            return chosen
        column = remaining[:, best].copy()
        remaining -= np.outer(column, column) / (column[best] + _KERNEL**2)
        chosen.append(best)
        free[best] = False
        left -= cost[best]


def factors(samples: Sequence[Sample], fit: Fit) -> tuple[Factor, ...]:
    """The correction by category, averaged over its samples; the most sampled first."""
    members: dict[str, list[Work]] = {}
    for sample in samples:
        members.setdefault(sample.work.category, []).append(sample.work)
    found = []
    for category, works in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        mean, deviation = fit.average(works)
        low, high = (math.exp(mean + sign * _NINE_IN_TEN * deviation) for sign in (-1, 1))
        found.append(Factor(category, math.exp(mean), low, high, len(works)))
    return tuple(found)


def fit(samples: Sequence[Sample], host: Host, device: Device, predictor: Predictor | None = None) -> Fit:
    """What the samples say of the predictor on this device; what dispatching cost is taken off them."""
    works = [sample.work for sample in samples]
    predicted = _base_prices(works, device, host, predictor or Gnomon())
    ratios, noise = [], []
    for sample, price in zip(samples, predicted, strict=True):
        overhead = host.bare_s + sample.views * host.view_s if device.kind == "cpu" else 0.0
        seconds = sample.seconds / sample.disturbance
        work_s = max(seconds - overhead, _LEAST_SHARE * seconds)
        ratios.append(math.log(work_s / price.time.value_s))
        doubts = (sample.noise, _DISPATCH_DOUBT * overhead / work_s, _SLOWED_DOUBT * abs(math.log(sample.disturbance)))
        noise.append(math.hypot(*doubts))
    return Fit(works, ratios, noise)


class Calibrated:
    """A predictor corrected by a calibration: what `fit` learnt multiplies its prices. A `Predictor` itself."""

    def __init__(self, calibration: Calibration, predictor: Predictor | None = None) -> None:
        self._base = predictor or Gnomon()
        self.calibration = calibration
        self.name = f"{self._base.name}+calibrated"
        self._fit = fit(calibration.samples, calibration.host, calibration.device, self._base)

    def check(self, device: Device) -> None:
        """Raises UsageError when the calibration is another device's."""
        if device.name != self.calibration.device.name:
            raise UsageError(
                f"the calibration of {self.calibration.title} was measured on {self.calibration.device.name!r}; it "
                f"says nothing about {device.name!r}. Calibrate there, or forecast without a calibration"
            )

    def prices(self, works: Sequence[Work], device: Device) -> list[Price]:
        """Corrected prices. Raises UsageError for another device, and as the predictor does."""
        self.check(device)
        base = _base_prices(works, self.calibration.device, self.calibration.host, self._base)
        found = self._fit.correct(works)
        prices = []
        for work, price, mean, deviation in zip(works, base, found.mean, found.deviation, strict=True):
            value, half = price.time.value_s * math.exp(mean), _NINE_IN_TEN * float(deviation)
            if work.category == "view" or work.flop is None:  # nothing of the kind is measured
                prices.append(price)
                continue
            time = Estimate(value, value * math.exp(-half), value * math.exp(half))
            prices.append(Price(time, price.bound, price.occupancy))
        return prices

    def remarks(self, device: Device) -> list[str]:
        return []

    def common_spread(self, device: Device) -> float:
        return 0.10  # on the device at hand: caches warmer or colder than in a lone kernel, Python beyond dispatch

    def dispatch(self, phases: Sequence[str], mode: str) -> Efficiency:
        """Host time per operator of a graph. phases: of its operators that are no views. mode: as the graph's."""
        host = self.calibration.host
        by_phase = {"forward": host.forward_s if mode == "training" else host.inference_s,
                    "backward": host.backward_s, "optimizer": host.optimizer_s}  # fmt: skip
        mean = math.fsum(by_phase[phase] for phase in phases) / len(phases) if phases else host.inference_s
        return Efficiency(mean, 0.6 * mean, 1.8 * mean)  # a module may do more Python than ours

    def view(self) -> Efficiency:
        """Host time per view."""
        seconds = self.calibration.host.view_s
        return Efficiency(seconds, 0.6 * seconds, 1.8 * seconds)


def _base_prices(works: Sequence[Work], device: Device, host: Host, predictor: Predictor) -> list[Price]:
    """The predictor's; on a CPU always our own model's, with the page faults of this machine."""
    if device.kind == "cpu":
        page = Efficiency(host.page_s, 0.7 * host.page_s, 1.5 * host.page_s)
        return [cpu.price(work, device, page) for work in works]
    return predictor.prices(works, device)
