import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import CheckFailed, NotRunnable
from gnomon.workload.stages import Pipeline


def plus(n):
    return lambda x: x + n


def fails_at(item, error=ZeroDivisionError, text="by hand"):
    def stage(x):
        if x == item:
            raise error(text)
        return x

    return stage


@given(st.lists(st.integers()), st.integers(0, 4))
def test_streaming_is_the_same_as_calling_the_stages_one_by_one(items, queue):
    pipeline = Pipeline(plus(1), lambda x: x * 3, str, queue)
    assert list(pipeline.stream(items)) == [str((x + 1) * 3) for x in items]


def test_a_stage_that_is_left_out_passes_the_batch_on():
    pipeline = Pipeline(None, plus(1), None)
    assert list(pipeline.stream([1, 2])) == [2, 3]
    assert set(pipeline.times) == {"run"}


def test_preprocess_of_the_next_item_overlaps_with_the_run_of_this_one():
    second_is_here = threading.Event()

    def preprocess(x):
        if x == 1:
            second_is_here.set()
        return x

    def run(x):
        return second_is_here.wait(timeout=30) if x == 0 else True

    assert list(Pipeline(preprocess, run, None).stream([0, 1])) == [True, True]


@pytest.mark.parametrize("queue", [0, 1, 2, 5])
def test_a_slow_run_holds_the_preprocess_back(queue):
    drawn, ahead = [0], []
    at_limit = threading.Event()

    def items():
        for i in range(50):
            drawn[0] = i + 1
            if i >= queue + 1:
                at_limit.set()
            yield i

    def run(i):
        if queue:
            at_limit.wait(timeout=30)  # it is as far ahead as it gets
        ahead.append(drawn[0] - i)
        return i

    assert list(Pipeline(plus(0), run, None, queue).stream(items())) == list(range(50))
    # this one, those that wait, the one that finds the queue full
    assert max(ahead) <= (queue + 2 if queue else 1)
    assert queue == 0 or max(ahead) > 1


@pytest.mark.parametrize(("count", "queue"), [(10**6, 0), (50_000, 2), pytest.param(10**6, 2, marks=pytest.mark.slow)])
def test_a_million_items_need_no_more_memory_than_a_few(count, queue):
    started, most = sys.getallocatedblocks(), 0
    for i, result in enumerate(Pipeline(lambda i: [i], lambda batch: [batch], None, queue).stream(range(count))):
        assert result == [[i]]
        if i % 1000 == 0:
            most = max(most, sys.getallocatedblocks() - started)
    assert i == count - 1
    assert most < 10_000  # one object kept of each item would be a block each


@pytest.mark.parametrize("queue", [0, 2])
@pytest.mark.parametrize("stage", ["preprocess", "run", "postprocess"])
def test_a_failing_stage_ends_the_stream_after_the_results_before_it(stage, queue):
    stages = {"preprocess": None, "run": plus(0), "postprocess": None, stage: fails_at(3)}
    stream = Pipeline(**stages, queue=queue).stream(range(10))
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(CheckFailed, match=f"stage {stage}, item 3: ZeroDivisionError: by hand") as caught:
        next(stream)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert list(stream) == []


def test_an_item_that_cannot_be_drawn_is_named_too():
    def items():
        yield 0
        raise OSError("the disk is gone")

    with pytest.raises(CheckFailed, match="stage items, item 1: OSError: the disk is gone"):
        list(Pipeline(plus(0), plus(0), None).stream(items()))


def test_an_error_of_ours_keeps_its_class():
    with pytest.raises(NotRunnable, match="stage run, item 1: too large"):
        list(Pipeline(None, fails_at(1, NotRunnable, "too large"), None).stream([0, 1]))


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    stream = Pipeline(plus(0), plus(0), None).stream(iter(int, 1))
    assert next(stream) == 0
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before


def test_the_observer_sees_each_stage_of_each_item_and_the_sums_agree():
    seen = []

    def burn(x):
        end = time.thread_time_ns() + 2_000_000
        while time.thread_time_ns() < end:
            pass
        return x

    pipeline = Pipeline(plus(1), burn, plus(1), observer=lambda *event: seen.append(event))
    assert list(pipeline.stream([0, 0, 0])) == [2, 2, 2]
    assert sorted((stage, item) for stage, item, *_ in seen) == [
        (stage, item) for stage in ("postprocess", "preprocess", "run") for item in range(3)
    ]
    assert all(start <= end for _, _, start, end, _ in seen)
    for stage, total in pipeline.times.items():
        events = [event for event in seen if event[0] == stage]
        assert total.items == 3
        assert total.wall_s == pytest.approx(sum(end - start for _, _, start, end, _ in events) * 1e-9)
        assert total.cpu_s == pytest.approx(sum(cpu for *_, cpu in events) * 1e-9)
    assert pipeline.times["run"].cpu_s >= 0.006
    by_item = {(stage, item): (start, end) for stage, item, start, end, _ in seen}
    for item in range(3):
        assert by_item["preprocess", item][1] <= by_item["run", item][0]
        assert by_item["run", item][1] <= by_item["postprocess", item][0]


def test_a_pipeline_can_stream_again_and_counts_anew():
    pipeline = Pipeline(plus(1), plus(1), None)
    for _ in range(2):
        assert list(pipeline.stream([0, 1])) == [2, 3]
        assert pipeline.times["run"].items == 2


def test_a_negative_queue_is_refused():
    with pytest.raises(ValueError, match="0 batches or more; got -1"):
        Pipeline(None, plus(0), None, queue=-1)
