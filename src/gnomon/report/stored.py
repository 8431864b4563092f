"""Two measurements taken at different times: the ratio, and what else differs between them."""

from collections.abc import Mapping
from dataclasses import dataclass

from gnomon.core.stats import RatioTest, unpaired_ratio_test
from gnomon.measure.child import Clock
from gnomon.measure.compare import MARGIN, session_times
from gnomon.measure.drift import drift
from gnomon.measure.record import Measurement


@dataclass(frozen=True, slots=True)
class StoredComparison:
    """ratio: how much faster `second` is, from its untraced sessions. differences: what -> (in first, in second).

    clock: CPU time, wall time where one of them ran on another device. aspects: which of task, software, hardware and
    setting differ; a ratio is controlled when exactly one does. warnings: drift inside either measurement.
    """

    first: str
    second: str
    ratio: RatioTest
    aspects: tuple[str, ...]
    differences: Mapping[str, tuple[str, str]]
    clock: Clock = "cpu"
    warnings: tuple[str, ...] = ()


def compare_measurements(
    first_id: str, first: Measurement, second_id: str, second: Measurement, margin: float | None = MARGIN
) -> StoredComparison:
    """Compare the untraced runs of two measurements. first_id, second_id: names of the runs, copied into the answer.

    margin: the relative difference up to which they count as equal.
    """
    aspects, differences = what_differs(first, second)
    clock = common_clock(first, second)
    a, b = (session_times(m.levels[0].sessions, clock) for m in (first, second))
    warnings = [
        f"{name}: {text}"
        for name, m in ((first_id, first), (second_id, second))
        for text in drift(m.levels[0].sessions, clock)
    ]
    ratio = unpaired_ratio_test(a, b, margin=margin)
    return StoredComparison(first_id, second_id, ratio, aspects, differences, clock, tuple(dict.fromkeys(warnings)))


def common_clock(*measurements: Measurement) -> Clock:
    """CPU time where all ran on a CPU; a device's work shows in wall time only."""
    return "cpu" if all(m.environment.device == "cpu" for m in measurements) else "wall"


def what_differs(first: Measurement, second: Measurement) -> tuple[tuple[str, ...], dict[str, tuple[str, str]]]:
    """The aspects that differ (task, software, hardware, setting), and every fact of them in which they do."""
    sides = [_facts(m) for m in (first, second)]
    aspects, differences = [], {}
    for aspect in sides[0]:
        a, b = sides[0][aspect], sides[1][aspect]
        changed = {key: (a.get(key, "-"), b.get(key, "-")) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}
        if changed:
            aspects.append(aspect)
            differences.update(changed)
    return tuple(aspects), differences


def _facts(measurement: Measurement) -> dict[str, dict[str, str]]:
    environment = measurement.environment
    return {
        "task": {"task": measurement.task, "variant": measurement.variant, "mode": measurement.mode,
                 "digest": measurement.task_digest},
        "software": {"python": environment.python, **environment.packages},
        "hardware": {"device": environment.device,
                     **{key: str(value) for key, value in environment.machine.items()}},
        "setting": {"threads": str(environment.threads), "allocator": environment.allocator,
                    **{f"dim {name}": str(size) for name, size in measurement.dims.items()}},
    }  # fmt: skip
