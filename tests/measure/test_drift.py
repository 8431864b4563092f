import numpy as np
import pytest

from gnomon.measure.drift import disturbances, drift, ratio_drift
from gnomon.measure.record import Session


def sessions(paces, slope=0.0, calls=40, noise=0.01, seed=0, is_stable=True):
    """One session per pace; slope: how much longer the last call takes than the first, as a fraction."""
    rng, made = np.random.default_rng(seed), []
    for pace in paces:
        cpu = pace * (1 + slope * np.linspace(-0.5, 0.5, calls)) * np.exp(rng.normal(0, noise, calls))
        made.append(Session(tuple(2 * cpu), tuple(cpu), (0,) * calls, 9, is_stable, 1.0, 0.1, 0.1, 10**8))
    return made


@pytest.mark.parametrize(("slope", "word"), [(0.05, "slower"), (-0.05, "faster")])
def test_calls_that_get_slower_within_sessions_are_told_with_how_much(slope, word):
    (text,) = drift(sessions([1.0] * 4, slope), "cpu")
    assert f"{word} from the first to the last of a session" in text
    assert 0.03 < float(text.split()[2].rstrip("%")) / 100 < 0.07


def test_the_first_slower_session_is_named():
    (text,) = drift(sessions([1.0] * 6 + [1.04] * 4, noise=0.02), "wall")
    assert text.startswith("sessions 7.. are ")
    assert "% slower than those before" in text
    assert 0.03 < float(text.split()[3].rstrip("%")) / 100 < 0.05


def test_sessions_that_get_steadily_slower_are_a_trend():
    (text,) = drift(sessions(np.linspace(1.0, 1.1, 7)), "cpu")
    assert text.startswith("sessions get ")
    assert "slower from the first to the last (trend" in text


def test_steady_sessions_are_hardly_ever_warned_about():
    warned = sum(bool(drift(sessions([1.0] * 6, seed=seed), "cpu")) for seed in range(100))
    assert warned <= 4


@pytest.mark.parametrize("made", [sessions([1.0] * 2, 0.5), sessions([1.0] * 4, 0.5, calls=3), sessions([1.0, 2.0])])
def test_too_few_sessions_or_calls_say_nothing(made):
    assert drift(made, "cpu") == []


def test_a_drift_that_is_there_but_small_is_not_told():
    assert drift(sessions([1.0] * 5, slope=0.004, noise=1e-5), "cpu") == []


def test_sessions_that_never_became_steady_are_counted():
    made = sessions([1.0, 1.0], is_stable=False) + sessions([1.0])
    assert disturbances(made, "cpu", 3.0) == [
        "2 of 3 sessions were still changing by more than 5 % after 3 s of warm-up"
    ]


def test_what_the_machine_does_to_both_is_no_drift_of_the_ratio():
    a = np.linspace(1.0, 2.0, 10)
    assert ratio_drift(a, 1.1 * a, "b") == []
    (text,) = ratio_drift(a, a * np.repeat([1.0, 1.05], [5, 5]), "b")
    assert text.startswith("b against the baseline: ratios of sessions 6.. are 5.0% slower")
