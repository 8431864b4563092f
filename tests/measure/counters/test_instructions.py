import platform
import shutil
from dataclasses import replace

import pytest

from gnomon.core.errors import CheckFailed
from gnomon.measure.counters import client
from gnomon.measure.counters.instructions import LONGEST_CALL_S, block_totals, count_instructions, why_not
from tests.measure import tasks

needs_valgrind = pytest.mark.skipif(
    shutil.which("valgrind") is None or platform.machine() != "x86_64", reason="needs valgrind on x86-64"
)


def _dump(part, total):
    head = f"# callgrind format\nversion: 1\npid: 7\npart: {part}\n\nevents: Ir\nsummary: {total + 9}\n"
    return f"{head}\nfn=(1) a\n0 1\n\ntotals: {total}\n"


def test_the_totals_of_the_blocks_are_read_in_their_order():
    assert block_totals([_dump(3, 30), _dump(1, 10), _dump(4, 40), _dump(5, 1), _dump(2, 20)]) == [10, 20, 30, 40]


def test_a_block_that_was_not_written_is_an_error():
    with pytest.raises(CheckFailed, match=r"callgrind wrote parts \[1, 2\]; wanted \[1, 2, 3, 4\]"):
        block_totals([_dump(1, 10), _dump(2, 20), "totals: 7\n", "part: 3\n"])


@needs_valgrind
def test_a_task_that_would_take_hours_is_refused_with_the_limit():
    assert why_not(tasks.linear(), LONGEST_CALL_S) is None
    reason = why_not(tasks.linear(), 2 * LONGEST_CALL_S)
    assert "one call takes 0.20 s of CPU time, and some fifty times that under valgrind; the limit is 0.1 s" in reason
    assert "valgrind sees the CPU only" in why_not(tasks.linear(device="cuda:0"), 0.1)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86-64")
def test_outside_of_valgrind_a_request_answers_nothing_and_harms_nothing():
    valgrind = client.Client()
    assert not valgrind.is_watched
    assert valgrind.request(client.START) == valgrind.request(client.DUMP) == 0


def test_without_valgrind_the_counter_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    counter = count_instructions(tasks.linear(), 0.01, lambda text: None)
    assert (counter.source, counter.value) == ("valgrind", None)
    assert "valgrind is not installed" in counter.unavailable


@needs_valgrind
def test_a_task_that_takes_too_long_under_valgrind_is_told_and_fails_nothing():
    quick = replace(tasks.linear(), protocol=tasks.Protocol(timeout_s=0.5))
    counter = count_instructions(quick, 0.01, lambda text: None)
    assert counter.value is None
    assert "the task did not run under valgrind" in counter.unavailable
    assert "did not end within 500 ms" in counter.unavailable


@needs_valgrind
@pytest.mark.slow
@pytest.mark.timeout(900)  # Python and torch start under valgrind, twice
def test_twice_the_work_is_twice_the_instructions():
    def count(batch):
        task = tasks.linear(width=256, dims={"B": batch})
        return count_instructions(task, 0.01, lambda text: None).value

    one, two = count(256), count(512)
    assert one.high - one.low < 0.02 * one.value  # exact but for Python's own housekeeping
    assert 1.7 < two.value / one.value < 2.1
