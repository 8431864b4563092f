import itertools
import math

import numpy as np
import pytest

from gnomon.core.errors import CheckFailed
from gnomon.measure.clock import Clock, elapsed, resolution_ns


def test_a_clock_that_goes_backwards_is_an_error():
    with pytest.raises(CheckFailed, match="the wall clock went backwards by 3 ns during a call; nothing timed with it"):
        elapsed(10, 7, "wall")


def test_a_clock_may_stand_still_for_a_moment():
    assert elapsed(7, 7, "wall") == 0


@pytest.mark.parametrize("tick", [1, 250, 10_000_000])
def test_the_resolution_of_a_coarse_clock_is_its_tick(tick):
    readings = itertools.count()
    assert resolution_ns(lambda: next(readings) // 7 * tick, "CPU") == tick


def test_a_clock_that_never_moves_is_an_error(monkeypatch):
    monkeypatch.setattr("gnomon.measure.clock._LONGEST_TICK_READS", 1000)
    with pytest.raises(CheckFailed, match="the wall clock stood still for 1000 readings"):
        resolution_ns(lambda: 5, "wall")


def test_resolution_also_notices_a_clock_that_goes_backwards():
    readings = itertools.count(0, -1)
    with pytest.raises(CheckFailed, match="went backwards"):
        resolution_ns(lambda: next(readings), "wall")


def test_touching_fresh_pages_is_counted():
    clock, page = Clock(), 4096
    before = clock.page_faults()
    fresh = np.empty(64 * 2**20, dtype=np.uint8)  # over the threshold from which malloc maps new pages
    fresh[::page] = 1
    faults = clock.page_faults() - before
    assert faults >= math.ceil(len(fresh) / 2**21)  # huge pages of 2 MiB fault once each
