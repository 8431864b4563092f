"""A gate for continuous integration: is a task slower than its baseline by more than is allowed? Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.core.records import record
from gnomon.core.stats import Interval, unpaired_ratio_test
from gnomon.measure.child import Clock
from gnomon.measure.compare import session_times
from gnomon.measure.drift import drift
from gnomon.measure.record import Measurement
from gnomon.report.stored import common_clock, what_differs

_LEVEL = 0.9  # each end of the interval is wrong one time in twenty, and one end decides
# what makes a machine another one; the kernel, the memory that it leaves and the present clock rate may differ
_MACHINE = (
    "cpu", "vendor", "architecture", "sockets", "cores", "cpus", "usable_cpus", "cpu_quota", "caches", "isa",
    "hypervisor", "gpus",
)  # fmt: skip


@record("gate", 1)
@dataclass(frozen=True, slots=True)
class Gate:
    """The answer. slowdown: time of the candidate over that of the baseline, 90 % interval (5 % beyond each end).

    verdict: 'regressed' when the slowdown is beyond `largest` for sure, 'held' when it is not for sure, 'undecided'
    otherwise. passed: not regressed; with `strict`, held. detectable: the smallest difference that these sessions find
    with 80 % power, None with a single session. differences: what else differs -> (in the baseline, in the candidate).
    """

    task: str
    baseline: str
    candidate: str
    clock: Clock
    slowdown: Interval
    largest: float
    strict: bool
    verdict: Literal["regressed", "held", "undecided"]
    passed: bool
    detectable: float | None
    differences: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...] = ()


def gate(
    baseline_name: str,
    baseline: Measurement,
    candidate_name: str,
    candidate: Measurement,
    *,
    largest: float,
    strict: bool = False,
    any_machine: bool = False,
) -> Gate:
    """Judge a measurement against its baseline. largest: the regression that is allowed, 0.05 for 5 %.

    strict: what cannot be excluded counts as there. any_machine: judge although the machines differ.
    Raises UsageError when the two are no comparable measurements of one task, NotRunnable when they are of different
    machines.
    """
    _refuse_unlike(baseline, candidate)
    _, differences = what_differs(baseline, candidate)
    machine = {key: differences[key] for key in _MACHINE if key in differences}
    told = "; ".join(f"{key}: {_short(a)} there, {_short(b)} here" for key, (a, b) in machine.items())
    if machine and not any_machine:
        raise NotRunnable(
            f"the baseline {baseline_name} was measured on another machine, so a slowdown would say nothing about the "
            f"change ({told}). Save a baseline on this machine, or judge all the same with --any-machine"
        )
    clock = common_clock(baseline, candidate)
    here, there = candidate.levels[0].sessions, baseline.levels[0].sessions
    test = unpaired_ratio_test(session_times(here, clock), session_times(there, clock), level=_LEVEL)
    slowdown, bound = test.speedup, 1 + largest
    verdict: Literal["regressed", "held", "undecided"] = "undecided"
    if slowdown.low is not None and slowdown.high is not None:
        verdict = "regressed" if slowdown.low > bound else "held" if slowdown.high <= bound else "undecided"
    warnings = [f"the machines differ: {told}"] if machine else []
    for name, sessions in ((candidate_name, here), (baseline_name, there)):
        warnings += [f"{name}: {text}" for text in drift(sessions, clock)]
    passed = verdict == "held" if strict else verdict != "regressed"
    detectable = None if test.detectable is None else test.detectable - 1
    return Gate(
        candidate.task, baseline_name, candidate_name, clock, slowdown, largest, strict, verdict, passed, detectable,
        differences, tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


def sentences(found: Gate) -> list[str]:
    """The answer in words: what was found, how sure it is, and what could not have been seen."""
    low, high = found.slowdown.low, found.slowdown.high
    change = found.slowdown.value - 1
    direction = "longer" if change >= 0 else "shorter"
    interval = "one session: no interval" if low is None or high is None else f"{low - 1:+.1%} to {high - 1:+.1%}"
    beyond = {
        "regressed": f"more than the {found.largest:.1%} that are allowed",
        "held": f"within the {found.largest:.1%} that are allowed",
        "undecided": f"whether that is more than the {found.largest:.1%} that are allowed is open",
    }[found.verdict]
    clock = "CPU" if found.clock == "cpu" else "wall"
    said = [
        f"{'passed' if found.passed else 'FAILED'}: {found.task} takes {abs(change):.1%} {direction} than the baseline "
        f"{found.baseline} in {clock} time [{interval}]; {beyond}."
    ]
    if found.detectable is None:
        said.append("A single session on a side bounds nothing: take more with --sessions.")
    else:
        said.append(f"With these sessions a difference below {found.detectable:.1%} cannot be seen (80 % power).")
    if found.verdict == "undecided" and found.strict:
        said.append("Strict: what cannot be excluded counts as there. More sessions may decide it.")
    return said


def _refuse_unlike(baseline: Measurement, candidate: Measurement) -> None:
    pairs = {
        "task": (baseline.task, candidate.task),
        "mode": (baseline.mode, candidate.mode),
        "sizes": (dict(baseline.dims), dict(candidate.dims)),
        "device": (baseline.environment.device, candidate.environment.device),
        "threads": (baseline.environment.threads, candidate.environment.threads),
    }
    unlike = [f"{what} {a!r} there and {b!r} here" for what, (a, b) in pairs.items() if a != b]
    if unlike:
        raise UsageError(f"the baseline is of another thing: {'; '.join(unlike)}. Save one for this with gate --save")


def _short(value: str) -> str:
    return value if len(value) <= 80 else value[:77] + "..."
