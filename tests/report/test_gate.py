import dataclasses

import numpy as np
import pytest
import scipy.stats

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.core.records import from_json, to_json
from gnomon.measure.record import LevelRun
from gnomon.report.gate import Gate, gate, sentences


def measured(examination, pace, sessions=6, spread=0.005, seed=0, **changes):
    """The example's measurement with sessions of this pace; changes: of its environment."""
    one, rng = examination.measurement.levels[0].sessions[0], np.random.default_rng(seed)
    made = []
    for _ in range(sessions):
        times = pace * np.exp(rng.normal(0, spread)) * np.exp(rng.normal(0, 0.002, 30))
        made.append(dataclasses.replace(one, cpu_s=tuple(times), wall_s=tuple(2 * times)))
    m = examination.measurement
    environment = dataclasses.replace(m.environment, **changes)
    return dataclasses.replace(m, levels=(LevelRun("model", tuple(made), None),), environment=environment)


def judge(examination, pace, largest=0.05, sessions=6, spread=0.005, **options):
    past, now = measured(examination, 1.0), measured(examination, pace, sessions, spread, seed=1)
    return gate("base.json", past, "run-b", now, largest=largest, **options)


@pytest.mark.parametrize(("pace", "verdict"), [(0.8, "held"), (1.0, "held"), (1.1, "regressed"), (1.05, "undecided")])
def test_a_regression_beyond_what_is_allowed_is_stopped_once_it_is_established(examination, pace, verdict):
    found = judge(examination, pace)
    assert (found.verdict, found.passed) == (verdict, verdict != "regressed")
    assert found.slowdown.low < pace < found.slowdown.high


def test_strict_stops_what_cannot_be_excluded(examination):
    assert judge(examination, 1.05).passed
    assert not judge(examination, 1.05, strict=True).passed
    assert judge(examination, 1.0, strict=True).passed


def test_one_session_passes_unless_strict_and_says_that_it_bounds_nothing(examination):
    past, now = measured(examination, 1.0, 1), measured(examination, 2.0, 1)
    found = gate("a", past, "b", now, largest=0.05)
    assert (found.verdict, found.passed) == ("undecided", True)
    assert "single session" in " ".join(sentences(found))
    assert not gate("a", past, "b", now, largest=0.05, strict=True).passed


def test_the_interval_is_welchs_at_90_per_cent(examination):
    past, now = measured(examination, 1.0), measured(examination, 1.03, 9, 0.02, seed=1)
    found = gate("a", past, "b", now, largest=0.05)
    half = [np.mean(sorted(s.cpu_s)[:15]) for m in (now, past) for s in m.levels[0].sessions]
    expected = scipy.stats.ttest_ind(np.log(half[:9]), np.log(half[9:]), equal_var=False).confidence_interval(0.9)
    assert found.slowdown.low == pytest.approx(np.exp(expected.low), rel=1e-3)  # our degrees are rounded down
    assert found.slowdown.high == pytest.approx(np.exp(expected.high), rel=1e-3)


def test_an_equal_task_is_stopped_at_most_one_time_in_twenty_at_the_edge(examination):
    stopped = 0
    for seed in range(300):
        past = measured(examination, 1.0, 5, 0.02, seed=seed)
        now = measured(examination, 1.05, 5, 0.02, seed=1000 + seed)
        stopped += not gate("a", past, "b", now, largest=0.05).passed
    assert 3 <= stopped <= 31  # 15 are expected


def test_a_baseline_of_another_machine_is_not_judged_unless_asked(examination):
    past = measured(examination, 1.0)
    machine = {**past.environment.machine, "cpu": "Another CPU"}
    now = measured(examination, 1.0, seed=1, machine=machine)
    with pytest.raises(NotRunnable, match=r"measured on another machine.*cpu: .*Another CPU here.*--any-machine"):
        gate("a", past, "b", now, largest=0.05)
    found = gate("a", past, "b", now, largest=0.05, any_machine=True)
    assert found.warnings[0].startswith("the machines differ: cpu")


def test_a_kernel_or_a_clock_rate_makes_no_other_machine(examination):
    past = measured(examination, 1.0)
    machine = {**past.environment.machine, "kernel": "99.0", "frequency_hz": 1.0}
    found = gate("a", past, "b", measured(examination, 1.0, machine=machine), largest=0.05)
    assert {"kernel", "frequency_hz"} <= set(found.differences)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: dataclasses.replace(m, task="other"), "task 'sentence-embedding' there and 'other' here"),
        (lambda m: dataclasses.replace(m, dims={"B": 1}), "sizes .* here"),
        (lambda m: dataclasses.replace(m, environment=dataclasses.replace(m.environment, threads=64)), "threads"),
    ],
)
def test_a_baseline_of_another_thing_is_refused(examination, change, message):
    past = measured(examination, 1.0)
    with pytest.raises(UsageError, match=message):
        gate("a", past, "b", change(past), largest=0.05)


def test_a_device_is_judged_by_wall_time(examination):
    past = measured(examination, 1.0, device="cuda:0")
    assert gate("a", past, "b", measured(examination, 1.0, seed=1, device="cuda:0"), largest=0.05).clock == "wall"


@pytest.mark.parametrize("pace", [0.9, 1.0, 1.2])
def test_the_answer_is_told_with_interval_and_power_and_survives_storage(examination, pace):
    found = judge(examination, pace)
    said = " ".join(sentences(found))
    assert ("FAILED" in said) == (pace == 1.2)
    assert "% to " in said
    assert "cannot be seen (80 % power)" in said
    assert ("shorter" in said) == (found.slowdown.value < 1)
    assert from_json(to_json(found), Gate) == found
