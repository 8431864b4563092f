"""Simulated schedules as traces."""

import json

import pytest

from gnomon.core.gantt import Bar, chrome_trace


def test_every_track_is_a_named_thread_with_its_bars_in_microseconds():
    bars = [Bar("stage 1", "a", 0.0, 2e-6), Bar("stage 2", "a", 2e-6, 5e-6), Bar("stage 1", "b", 2e-6, 3e-6)]
    events = json.loads(chrome_trace(bars, "pipeline"))["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert names == {1: "stage 1", 2: "stage 2"}
    drawn = [(names[e["tid"]], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert drawn == [("stage 1", "a", 0.0, 2.0), ("stage 2", "a", 2.0, 3.0), ("stage 1", "b", 2.0, 1.0)]


@pytest.mark.parametrize("end_s", [-1.0, float("nan")])
def test_a_bar_that_ends_before_it_starts_is_refused(end_s):
    with pytest.raises(ValueError, match=r"bar 'a' of 'x' ends at .* s, before 0.0 s"):
        chrome_trace([Bar("x", "a", 0.0, end_s)], "t")
