"""How far a predictor is from what was measured: kernels by class and device, whole models, coverage of intervals.

A device is judged by a model that has never seen it: with leave-one-out its experts are taken out first, without it a
device that the model has seen is reported as such and never among the unseen.
"""

import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gnomon.core.errors import UsageError
from gnomon.core.records import record
from gnomon.devices.device import Device
from gnomon.forecast import gpu, opgraphs
from gnomon.forecast.fit import without
from gnomon.forecast.kernels import Array
from gnomon.forecast.model import Model
from gnomon.forecast.opgraphs import Key, Traced
from gnomon.forecast.pack import Pack
from gnomon.forecast.pack.devices import Entry
from gnomon.forecast.pack.samples import Samples
from gnomon.forecast.predict import Forecaster, Host
from gnomon.forecast.predictors import Gnomon, Physics, Predictor
from gnomon.forecast.record import Estimate

Choose = Callable[[Device], Physics]  # the predictor that may judge a device
ROWS = 20_000  # of one device and kind that are judged at most
_DOUBLING = 2.15  # a batch of twice the size that takes longer than this shows a throttled or stalled session
_STALL = 1.25


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Errors |forecast / measured - 1| of a group. coverage: share inside the nominal 90 % interval; width: median of
    high / low. seen: whether the predictor was fitted on this device."""

    what: str
    device: str
    precision: str
    count: int
    mean: float
    median: float
    worst: float
    coverage: float
    width: float
    seen: bool


@dataclass(frozen=True, slots=True)
class ModelError:
    """One labelled run. defect: why its label is doubted, '' when it is not."""

    device: str
    model: str
    mode: str
    seqlen: int
    batch: int
    option: str
    measured_s: float
    forecast: Estimate
    seen: bool
    defect: str

    @property
    def error(self) -> float:
        return abs(self.forecast.value_s / self.measured_s - 1)


@record("evaluation", 1)
@dataclass(frozen=True, slots=True)
class Evaluation:
    """kernels: by class, precision, device, on shapes of real models where the pack has them. models: every label."""

    predictor: str
    leave_one_out: bool
    kernels: tuple[Accuracy, ...]
    models: tuple[ModelError, ...]


def evaluate(pack: Pack, model: Model, *, leave_one_out: bool, models: Path | None = None) -> Evaluation:
    """Judge `model` on everything in a pack: kernels, and labelled models where it has operator graphs.

    leave_one_out: a device that the model was fitted on is judged by what is left of the model without it.
    """

    @functools.cache
    def predictor(name: str) -> Gnomon:
        chosen = without(model, pack.samples, name) if leave_one_out else model
        assert not leave_one_out or name not in chosen.devices
        return Gnomon(chosen)

    def choose(device: Device) -> Gnomon:
        return predictor(device.name)

    def seen(name: str) -> bool:
        return name in model.devices and not leave_one_out

    errors: list[ModelError] = []
    if (pack.folder / "e2e_labels.csv").is_file() and (pack.folder / "opgraphs.parquet").is_file():
        graphs = opgraphs.read(pack.folder / "opgraphs.parquet", models)
        errors = judge_models(pack.folder, graphs, pack.devices, choose, seen)
    kernels = judge_kernels(pack.samples, choose, seen)
    return Evaluation(Gnomon.name, leave_one_out, tuple(kernels), tuple(errors))


def judge_kernels(samples: Sequence[Samples], choose: Choose, seen: Callable[[str], bool]) -> list[Accuracy]:
    """Accuracy on every group of kernels; shapes of real models where there are some, else all."""
    found = []
    for one in samples:
        rows = np.flatnonzero(one.split == "test")
        rows = rows if len(rows) else np.arange(len(one))
        if len(rows) > ROWS:
            rows = np.random.default_rng(0).choice(rows, ROWS, replace=False)
        judged = one.take(rows)
        physics = gpu.physics(judged.kernels, judged.device)
        times = choose(one.device).times(judged.kernels, judged.device, physics, judged.is_warm)
        value, low, high = (judged.measured(t) for t in times[:3])
        error = np.abs(value / judged.latency_s - 1)
        inside = (low <= judged.latency_s) & (judged.latency_s <= high)
        found.append(_accuracy(judged.what, one.device.name, judged.kernels.precision, error, inside, high / low,
                               seen(one.device.name)))  # fmt: skip
    return found


def _accuracy(
    what: str, device: str, precision: str, error: Array, inside: Array, width: Array, seen: bool
) -> Accuracy:
    return Accuracy(
        what, device, precision, len(error), float(np.mean(error)), float(np.median(error)), float(np.max(error)),
        float(np.mean(inside)), float(np.median(width)), seen,
    )  # fmt: skip


def judge_models(
    pack: Path, graphs: Mapping[Key, Traced], devices: Mapping[str, Entry], choose: Choose, seen: Callable[[str], bool]
) -> list[ModelError]:
    """Every label of `e2e_labels.csv` that has an operator graph. Raises UsageError for a device without a row."""
    path = pack / "e2e_labels.csv"
    with path.open(newline="", encoding="utf-8") as file:
        labels = list(csv.DictReader(file))
    found = []
    for label in labels:
        key = Key(label["model"], label["mode"], int(label["seqlen"]), int(label["batch"]), label["option"])
        name = label["device"]
        if name not in devices:
            raise UsageError(f"{pack / 'devices.csv'}: no row for {name!r}, which {path.name} names")
        if key in graphs:
            device = devices[name].device
            total = forecast(graphs[key], device, choose(device)).whole
            measured_s = float(label["e2e_ms"]) / 1e3
            found.append(ModelError(name, *key, measured_s, total, seen(name), _defect(label, labels)))
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """Forecast of a traced model: forward, backward (None at inference), both."""

    forward: Estimate
    backward: Estimate | None
    whole: Estimate


def forecast(traced: Traced, device: Device, predictor: Predictor) -> Step:
    """Times of one step of a pack's graph on a device; a fused graph is launched as compiled code is."""

    def time(graph: opgraphs.OpGraph) -> Estimate:
        host: Host = "compiled" if traced.key.option == "fusion" else "eager"
        return Forecaster(graph, predictor=predictor, host=host).on(device).total

    forward = time(traced.forward)
    if traced.backward is None:
        return Step(forward, None, forward)
    return Step(forward, time(traced.backward), time(traced.whole))


def _defect(label: Mapping[str, str], labels: Sequence[Mapping[str, str]]) -> str:
    """Doubt that the labels themselves give, whatever a forecast says.

    Throttled: more than _DOUBLING times the time of half the batch on the same device. Stalled: a training step whose
    forward pass takes longer than its backward, which does twice the arithmetic.
    """
    fields = ("device", "model", "mode", "seqlen", "option")
    time = float(label["e2e_ms"])
    for other in labels:
        if all(other[name] == label[name] for name in fields) and int(label["batch"]) == 2 * int(other["batch"]):
            if time > _DOUBLING * float(other["e2e_ms"]):
                return "throttled"
    if label["bw_ms"] and float(label["fw_ms"]) * _STALL > float(label["bw_ms"]):
        return "stalled"
    return ""


class Prediction(NamedTuple):
    """One operator graph on one device, in milliseconds; low and high bound the whole step. bw_ms 0 at inference."""

    model: str
    mode: str
    seqlen: int
    batch: int
    option: str
    fw_ms: float
    bw_ms: float
    e2e_ms: float
    low_ms: float
    high_ms: float


def predictions(path: Path, device: Device, predictor: Predictor, models: Path | None = None) -> list[Prediction]:
    """The forecast of every graph of `path` on `device`, in the order of the file."""
    found = []
    for key, traced in opgraphs.read(path, models).items():
        step = forecast(traced, device, predictor)
        backward_s = step.backward.value_s if step.backward is not None else 0.0
        times = (step.forward.value_s, backward_s, step.whole.value_s, step.whole.low_s, step.whole.high_s)
        found.append(Prediction(*key, *(1e3 * seconds for seconds in times)))
    return found


def write_predictions(rows: Sequence[Prediction], path: Path) -> None:
    """A CSV file with one row per graph. Raises UsageError when it cannot be written."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Prediction._fields)
            writer.writerows([*row[:5], *(f"{value:.6g}" for value in row[5:])] for row in rows)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
