"""The parts of benchmarks/compare_power.py that need no measurement."""

import importlib.util
from pathlib import Path

import pytest
import scipy.stats

SOURCE = Path(__file__).parents[1] / "benchmarks" / "compare_power.py"


@pytest.fixture(scope="module")
def power():
    spec = importlib.util.spec_from_file_location(SOURCE.stem, SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trial(planted, verdict, differs=False):
    return {"planted": planted, "verdict": verdict, "slowdown": 1 + planted, "sessions": 4, "seconds": 10.0,
            "plain": {"means": differs}}  # fmt: skip


def test_a_row_counts_what_was_found_of_each_slowdown_with_exact_intervals(power):
    trials = [trial(0.0, "no difference")] * 38 + [trial(0.0, "faster", True), trial(0.0, "undecided")]
    trials += [trial(0.05, "slower", True)] * 39 + [trial(0.05, "undecided")]
    none, some = power.summary(trials)
    expected = scipy.stats.binomtest(1, 40).proportion_ci(0.95, method="exact")
    assert (none["planted"], none["different"]["value"], none["slower"]["value"]) == (0.0, 1 / 40, 0.0)
    assert none["different"]["high"] == pytest.approx(expected.high)
    assert (some["slower"]["value"], some["plain"]["means"]["value"]) == (39 / 40, 39 / 40)
    assert some["measured"] == pytest.approx(0.05)


def test_the_usual_ways_call_means_that_are_apart_different(power):
    calls = [1.0, 1.001, 0.999] * 10
    assert set(power.plain_answers(calls, calls).values()) == {False}
    assert set(power.plain_answers(calls, [1.1 * t for t in calls]).values()) == {True}
