"""The pipeline simulator: limits in which the answer is known, bounds, and the state of every stage at any time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.forecast.length_aware.pipeline import PipelineSim, longest_first

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=10)
powers = st.lists(st.sampled_from([0.5, 1, 2]), min_size=1, max_size=5)


def stages(exponents):
    return tuple((f"stage {i}", lambda s, e=e: float(s) ** e) for i, e in enumerate(exponents))


@given(of=lengths, layers=st.integers(1, 4), buffer=st.integers(0, 3))
def test_one_stage_takes_the_sum_of_all_times(of, layers, buffer):
    run = PipelineSim(stages([1]), layers, buffer).run(of)
    assert run.makespan_s == pytest.approx(layers * sum(of))
    assert run.busy == pytest.approx((1,))


@given(count=st.integers(1, 40), depth=st.integers(1, 5))
def test_equal_lengths_fill_the_pipeline_as_the_batch_grows(count, depth):
    run = PipelineSim(stages([1] * depth)).run([7] * count)
    assert run.makespan_s == pytest.approx(7 * (count + depth - 1))
    assert run.utilization == pytest.approx(count / (count + depth - 1))


@given(of=lengths, exponents=powers, layers=st.integers(1, 4), buffer=st.integers(0, 2))
def test_the_makespan_reaches_the_critical_path_and_the_busiest_stage(of, exponents, layers, buffer):
    run = PipelineSim(stages(exponents), layers, buffer).run(of)
    path = layers * max(sum(s**e for e in exponents) for s in of)
    busiest = layers * max(sum(s**e for s in of) for e in exponents)
    assert run.makespan_s >= max(path, busiest) * (1 - 1e-12)
    assert run.makespan_s <= layers * sum(s**e for s in of for e in exponents) * (1 + 1e-12)


@given(of=lengths, exponents=powers, layers=st.integers(1, 3))
def test_more_buffers_never_make_it_slower(of, exponents, layers):
    times = [PipelineSim(stages(exponents), layers, buffer).run(of).makespan_s for buffer in range(4)]
    assert all(more <= fewer * (1 + 1e-12) for fewer, more in itertools.pairwise(times))


@given(of=lengths, exponents=powers, layers=st.integers(1, 3), buffer=st.integers(0, 2))
def test_no_stage_holds_two_sequences_and_no_queue_more_than_its_buffer(of, exponents, layers, buffer):
    run = PipelineSim(stages(exponents), layers, buffer).run(of)
    at = {(slot.stage, slot.layer, slot.sequence): slot for slot in run.slots}
    assert len(at) == len(exponents) * layers * len(of)
    for stage in range(len(exponents)):
        row = [slot for slot in run.slots if slot.stage == stage]
        assert all(a.leave_s <= b.start_s for a, b in itertools.pairwise(row))
        if not stage:
            continue
        before = [at[stage - 1, slot.layer, slot.sequence] for slot in row]
        assert all(slot.start_s >= earlier.leave_s for slot, earlier in zip(row, before, strict=True))
        for i, earlier in enumerate(before):  # who left the stage before, and has not been taken up here
            waiting = [b for b, slot in zip(before[: i + 1], row, strict=False) if slot.start_s > earlier.leave_s]
            assert len(waiting) <= buffer
    for slot in run.slots:
        if slot.layer and not slot.stage:
            assert slot.start_s >= at[len(exponents) - 1, slot.layer - 1, slot.sequence].leave_s


@given(of=lengths, exponents=powers, buffer=st.integers(0, 2))
def test_a_stage_that_could_go_on_does_not_wait(of, exponents, buffer):
    """Every start is the end of something: it cannot be earlier by any amount."""
    run = PipelineSim(stages(exponents), 2, buffer).run(of)
    times = {0.0} | {slot.leave_s for slot in run.slots}
    assert all(slot.start_s in times for slot in run.slots)
    ends = {slot.end_s for slot in run.slots} | times | {slot.start_s for slot in run.slots}
    assert all(slot.leave_s in ends for slot in run.slots)


@given(of=lengths, exponents=powers)
def test_padding_is_busy_but_not_useful(of, exponents):
    sim = PipelineSim(stages(exponents), 2)
    padded, plain = sim.run(of, padded_to=max(of)), sim.run(of)
    assert padded.makespan_s >= plain.makespan_s * (1 - 1e-12)
    for i, exponent in enumerate(exponents):
        share = sum(s**exponent for s in of) / (len(of) * max(of) ** exponent)
        assert padded.useful[i] == pytest.approx(padded.busy[i] * share)
        assert plain.useful[i] == pytest.approx(plain.busy[i])


def test_a_slow_stage_blocks_the_ones_before_it_until_there_is_a_buffer():
    slow_last = (("fast", lambda s: 1.0), ("slow", lambda s: 3.0))
    tight = PipelineSim(slow_last).run([1, 1, 1])
    assert [slot.leave_s for slot in tight.slots if slot.stage == 0] == [1, 4, 7]
    assert tight.blocked == pytest.approx((4 / 10, 0))
    buffered = PipelineSim(slow_last, buffer=1).run([1, 1, 1])
    assert [slot.leave_s for slot in buffered.slots if slot.stage == 0] == [1, 2, 4]


def test_bars_show_what_runs_and_what_is_blocked():
    bars = PipelineSim((("a", lambda s: 1.0), ("b", lambda s: 2.0))).run([1, 1]).bars()
    assert ("a", "blocked: sequence 1 layer 0", 2.0, 3.0) in bars
    assert ("b", "sequence 1 layer 0", 3.0, 5.0) in bars


def test_the_longest_go_first():
    assert longest_first([3, 9, 1]) == [9, 3, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PipelineSim(()), "stages must not be empty"),
        (lambda: PipelineSim(stages([1]), 0), "layers must be at least 1; got 0"),
        (lambda: PipelineSim(stages([1]), 1, -1), "buffer must not be negative; got -1"),
        (lambda: PipelineSim(stages([1])).run([]), r"lengths must be at least one, each at least 1; got \[\]"),
        (lambda: PipelineSim(stages([1])).run([3, 0]), r"lengths must be .* got \[3, 0\]"),
        (lambda: PipelineSim(stages([1])).run([3], padded_to=2), "padded_to must hold the longest sequence, 3 tokens"),
    ],
)
def test_what_cannot_be_simulated_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
