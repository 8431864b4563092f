"""Is a result the same again? What was expected against what came, part by part. No torch here.

After the reference log of DLSpec (arXiv:2002.11262): outputs within a tolerance, times by the interval of their ratio,
and no verdict about times on another machine.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gnomon.core.errors import DamagedData
from gnomon.core.records import record
from gnomon.core.stats import percentile, unpaired_ratio_test
from gnomon.measure.record import Measurement
from gnomon.spec.manifest import Expected, Result
from gnomon.spec.task import Metric

Verdict = Literal["same", "within tolerance", "no worse", "different", "worse", "other hardware", "not known"]
_FAILS: tuple[Verdict, ...] = ("different", "worse")
_MACHINE = ("cpu", "architecture", "usable_cpus", "cpu_quota", "isa")


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that was compared. aspect: specification, software, hardware, outputs, quality or performance.

    counts: whether 'different' and 'worse' mean that the result was not reproduced.
    """

    aspect: str
    name: str
    verdict: Verdict
    detail: str
    counts: bool = True


@record("reproduction", 1)
@dataclass(frozen=True, slots=True)
class Reproduction:
    """What became of a lock or a reference log when it was run again. against: the file."""

    task: str
    task_digest: str
    against: str
    verdict: Literal["reproduced", "not reproduced"]
    parts: tuple[Part, ...]
    measured_at: str

    @property
    def failed(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if is_failure(part))


def is_failure(part: Part) -> bool:
    """Does this part alone mean that the result was not reproduced?"""
    return part.counts and part.verdict in _FAILS


def specification(differences: list[str]) -> list[Part]:
    """One part of what differs between a lock and now, or one that says that nothing does."""
    if not differences:
        return [Part("specification", "all parts", "same", "every digest is the locked one")]
    return [Part("specification", *_split(text)) for text in differences]


def _split(text: str) -> tuple[str, Verdict, str]:
    name, _, rest = text.partition(": ")
    return name, "different", rest


def software(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[Part]:
    """Versions that differ; a result may well be the same with others, so they do not count on their own."""
    changed = [
        f"{name} {wanted.get(name, 'none')} -> {found.get(name, 'none')}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]
    if not changed:
        return [Part("software", "versions", "same", "all versions are those of the log", counts=False)]
    return [Part("software", "versions", "different", ", ".join(changed), counts=False)]


def hardware(wanted: Mapping[str, Any], found: Mapping[str, Any], device: str) -> Part:
    """Is it the same kind of machine: processor, CPUs that may be used, and on a GPU the GPUs."""
    keys = (*_MACHINE, "gpus") if device != "cpu" else _MACHINE
    changed = [
        f"{key} {_fact(wanted, key)} -> {_fact(found, key)}" for key in keys if _fact(wanted, key) != _fact(found, key)
    ]
    verdict: Verdict = "other hardware" if changed else "same"
    return Part(
        "hardware", device, verdict, ", ".join(changed) or "the machine of the log, or one like it", counts=False
    )


def _fact(machine: Mapping[str, Any], key: str) -> Any:
    value = machine.get(key)
    if key == "gpus":
        return [gpu.get("name") for gpu in value or ()]
    return list(value) if isinstance(value, tuple) else value


def output(expected: Expected, found: Mapping[str, Any] | None, folder: Path) -> Part:
    """One output against what the log says of it. folder: that of the log. found: as `reproduce.outputs` describes it.

    Raises DamagedData when the log's file is not the one whose SHA-256 it states, ManifestError when it is not there.
    """
    name = expected.name
    if found is None:
        return Part("outputs", name, "different", "the model gives no such output")
    here = (found["dtype"], tuple(found["shape"]))
    if here != (expected.dtype, expected.shape):
        wanted = f"{expected.dtype} {list(expected.shape)}"
        return Part("outputs", name, "different", f"wanted {wanted}, got {here[0]} {list(here[1])}")
    if found["digest"] == expected.digest:
        return Part("outputs", name, "same", "bit for bit")
    if expected.file is None:
        return Part(
            "outputs", name, "different", "other bits, and the log keeps no values to compare within a tolerance"
        )
    wanted_values = _values(folder, expected)
    values = np.load(found["file"], allow_pickle=False)
    a, b = (np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64) for x in (wanted_values, values))
    if a.shape != b.shape:
        raise DamagedData(f"{folder / expected.file} holds {list(a.shape)}; its log says {list(expected.shape)}")
    finite = np.isfinite(a) & np.isfinite(b)  # an infinity is close to nothing but itself, NaN to nothing
    a_finite, b_finite = np.where(finite, a, 0), np.where(finite, b, 0)
    error = np.abs(b_finite - a_finite)
    close = (a == b) | (finite & (error <= expected.atol + expected.rtol * np.abs(a_finite)))
    beyond = int((~close).sum())
    detail = f"largest difference {float(error.max(initial=0.0)):.3g}; atol {expected.atol:g}, rtol {expected.rtol:g}"
    if beyond:
        return Part("outputs", name, "different", f"{beyond} of {a.size} values beyond the tolerance: {detail}")
    return Part("outputs", name, "within tolerance", detail)


def _values(folder: Path, expected: Expected) -> Any:
    from gnomon.spec.find import inside

    path = inside(folder, str(expected.file))
    data = path.read_bytes()  # read once: what is hashed is what is compared
    found = hashlib.sha256(data).hexdigest()
    if found != expected.sha256:
        raise DamagedData(f"{path}: wanted SHA-256 {expected.sha256}, got {found}")
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise DamagedData(f"{path} is no .npy file: {error}") from error


def quality(expected: Result, found: float | None) -> Part:
    """The task's own metric, no worse than the log's by more than its tolerance (0 when none is stated)."""
    if found is None:
        return Part("quality", "quality", "not known", "the task has no quality.evaluate to run")
    loss = expected.value - found if expected.higher_is_better else found - expected.value
    tolerance = expected.tolerance or 0.0
    detail = f"{expected.value:.6g} -> {found:.6g}; may lose {tolerance:g}"
    if loss > tolerance:
        return Part("quality", "quality", "worse", detail)
    return Part("quality", "quality", "same" if found == expected.value else "within tolerance", detail)


def performance(name: str, expected: Result, found: Result | None, same_machine: bool) -> Part:
    """A time or rate: no worse when the 95 % interval of the ratio of sessions holds 1 or lies on the better side."""
    if not same_machine:
        return Part("performance", name, "other hardware", "times of another machine are not compared")
    if found is None or len(expected.samples) < 2 or len(found.samples) < 2:
        return Part("performance", name, "not known", "fewer than 2 sessions on a side: no interval")
    if expected.higher_is_better:
        test = unpaired_ratio_test(found.samples, expected.samples)
    else:
        test = unpaired_ratio_test(expected.samples, found.samples)
    ratio = test.speedup
    detail = (
        f"{expected.value:.4g} -> {found.value:.4g} {expected.unit}: {ratio.value:.3f}x as fast, "
        f"95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
    )
    return Part("performance", name, "worse" if test.verdict == "slower" else "no worse", detail)


def results(measurement: Measurement, metrics: tuple[Metric, ...]) -> dict[Metric, Result]:
    """The metrics of a log from a measurement, each with one value per session; 'quality' is not among them."""
    found: dict[Metric, Result] = {}
    sessions = measurement.levels[0].sessions
    for metric in metrics:
        if metric == "quality":
            continue
        if metric == "throughput_per_s":
            mean = measurement.latency["mean"]
            ends = (
                None
                if mean.low is None or mean.high is None
                else (measurement.batch / mean.high, measurement.batch / mean.low)
            )
            rates = tuple(measurement.batch * len(s.wall_s) / sum(s.wall_s) for s in sessions)
            found[metric] = Result(
                measurement.throughput_per_s, "1/s", len(sessions), ends, rates, higher_is_better=True
            )
            continue
        clock, statistic = metric.removesuffix("_s").split("_")
        is_cpu = clock == "cpu"
        interval = (measurement.cpu_latency if is_cpu else measurement.latency)[statistic]
        ends = None if interval.low is None or interval.high is None else (interval.low, interval.high)
        samples = [s.cpu_s if is_cpu else s.wall_s for s in sessions]
        values = tuple(sum(x) / len(x) if statistic == "mean" else percentile(x, float(statistic[1:])) for x in samples)
        found[metric] = Result(interval.value, "s", len(sessions), ends, values)
    return found
