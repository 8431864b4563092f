"""Two measurements taken at different times: the ratio, and what else differs between them."""

from collections.abc import Mapping
from dataclasses import dataclass

from gnomon.core.stats import RatioTest, percentile, unpaired_ratio_test
from gnomon.measure.record import Measurement


@dataclass(frozen=True, slots=True)
class StoredComparison:
    """ratio: how much faster `second` is, from CPU time of the sessions. differences: what -> (in first, in second).

    aspects: which of task, software, hardware and setting differ; a ratio is controlled when exactly one does.
    """

    first: str
    second: str
    ratio: RatioTest
    aspects: tuple[str, ...]
    differences: Mapping[str, tuple[str, str]]


def compare_measurements(first_id: str, first: Measurement, second_id: str, second: Measurement) -> StoredComparison:
    """Compare the untraced runs of two measurements. first_id, second_id: names of the runs, copied into the answer."""
    sides = [_facts(m) for m in (first, second)]
    aspects, differences = [], {}
    for aspect in sides[0]:
        a, b = sides[0][aspect], sides[1][aspect]
        changed = {key: (a.get(key, "-"), b.get(key, "-")) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}
        if changed:
            aspects.append(aspect)
            differences.update(changed)
    ratio = unpaired_ratio_test(_medians(first), _medians(second))
    return StoredComparison(first_id, second_id, ratio, tuple(aspects), differences)


def _medians(measurement: Measurement) -> list[float]:
    return [percentile(session.cpu_s, 50) for session in measurement.levels[0].sessions]


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
