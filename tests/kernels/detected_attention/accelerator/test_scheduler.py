"""Every needed pair is issued once, in as few steps and reads as each order allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gnomon.kernels.detected_attention.accelerator.design import ORDERS
from gnomon.kernels.detected_attention.accelerator.scheduler import schedule, totals

masks = st.tuples(st.integers(1, 5), st.integers(1, 24)).flatmap(lambda shape: arrays(bool, shape))
policies = pytest.mark.parametrize(
    ("order", "splits"),
    [("out-of-order", True), ("out-of-order", False), ("in-order", True), ("row-by-row", True)],
)


def queries(issue, rows):
    return [row for row in range(rows) if issue.queries >> row & 1]


@policies
@given(mask=masks)
def test_every_needed_pair_is_issued_once_and_no_query_gets_two_keys_in_a_step(order, splits, mask):
    issued = np.zeros(mask.shape, dtype=int)
    for step in schedule(mask, order, splits):
        served = [row for issue in step for row in queries(issue, len(mask))]
        assert len(served) == len(set(served))
        for issue in step:
            issued[queries(issue, len(mask)), issue.key] += 1
    np.testing.assert_array_equal(issued, mask)


@policies
@given(mask=masks)
def test_totals_are_those_of_the_steps(order, splits, mask):
    steps = [step for step in schedule(mask, order, splits) if step]
    found = totals(mask, order, splits)
    assert found == (len(steps), sum(map(len, steps)), mask.sum())


@policies
@given(mask=masks)
def test_reads_lie_between_the_union_and_the_sum(order, splits, mask):
    assert mask.any(0).sum() <= totals(mask, order, splits).loads <= mask.sum()


@given(mask=masks)
def test_out_of_order_reads_each_key_once_or_takes_the_fewest_steps(mask):
    thrifty, fast = (totals(mask, "out-of-order", splits) for splits in (False, True))
    assert thrifty.loads == mask.any(0).sum()
    assert fast.steps == mask.sum(1).max()
    assert fast.steps <= thrifty.steps
    assert totals(mask, "in-order").steps == fast.steps


@given(mask=arrays(bool, (1, 20)))
def test_one_query_at_a_time_is_row_by_row(mask):
    assert len({totals(mask, order) for order in ORDERS}) == 1


def test_keys_that_all_want_are_read_once_for_all():
    every = np.ones((4, 10), dtype=bool)
    assert totals(every, "out-of-order") == (10, 10, 40)
    assert totals(every, "in-order") == (10, 10, 40)
    assert totals(every, "row-by-row") == (40, 40, 40)


def test_out_of_order_meets_a_key_that_in_order_passes_at_different_times():
    mask = np.zeros((2, 4), dtype=bool)
    mask[0, [0, 3]] = mask[1, [2, 3]] = mask[1, 1] = True  # key 3 is second for one, third for the other
    assert totals(mask, "in-order") == (3, 5, 5)
    assert totals(mask, "out-of-order") == (3, 4, 5)


def test_a_query_with_keys_to_spare_waits_rather_than_reading_a_shared_key_twice():
    mask = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=bool)  # the sets {0, 1} and {0, 2}
    assert totals(mask, "out-of-order", splits=True) == (2, 2, 4)


def test_a_step_begins_with_the_largest_set_and_adds_what_fits_beside_it():
    wanted = [0b0001, 0b0111, 0b1000, 0b0011, 0b1111]  # by key: the queries that want it
    mask = np.array([[queue >> row & 1 for queue in wanted] for row in range(4)], dtype=bool)
    steps = [sorted(issue.queries for issue in step) for step in schedule(mask, "out-of-order", splits=False)]
    assert steps == [[0b1111], [0b0111, 0b1000], [0b0011], [0b0001]]
