import pytest
from rich.console import Console

from gnomon.core.stats import Interval
from gnomon.measure.record import Counter, Stage
from gnomon.report.counters import print_counters, print_stages, ratios


def _counter(name, value, **changes):
    return Counter(name, "perf", Interval(value, 0.9 * value, 1.1 * value, 0.95, 3), 1.0, **changes)


def _printed(show, *arguments):
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        show(console, *arguments)
    return capture.get()


def test_counts_are_printed_with_interval_and_share_and_a_missing_one_with_its_reason():
    gone = [Counter(name, "perf", None, None, "no such counter") for name in ("cycles", "branches")]
    exact = Counter("instructions", "valgrind", None, None, "valgrind is not installed")
    shown = _printed(print_counters, [_counter("page-faults", 1500.0), _counter("task-clock", 2e6), *gone, exact])
    assert "1.5 k" in shown
    assert "2 ms" in " ".join(shown.split()).replace("2.00", "2")
    assert "100 %" in shown
    assert "not available: cycles, branches: no such counter" in shown
    assert "not available: instructions (valgrind): valgrind is not installed" in shown
    assert _printed(print_counters, []) == ""


def test_ratios_are_there_when_both_sides_are():
    counters = [
        _counter("instructions", 6e9),
        _counter("cycles", 3e9),
        _counter("branches", 0.0),
        _counter("branch-misses", 1),
    ]
    assert ratios(counters) == [("instructions per cycle", pytest.approx(2.0))]


def test_stages_say_how_often_they_are_waited_for():
    once, always = Interval(2.0, 1.0, 3.0, 0.95, 3), Interval(2e-3, 1e-3, 3e-3, 0.95, 3)
    shown = _printed(print_stages, [Stage("import", "start", once), Stage("preprocess", "call", always, always)])
    assert "once per process" in shown
    assert "every call" in shown
    assert "not measured" in shown
    assert _printed(print_stages, []) == ""
