import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.forecast.parallel.data import Group, gather_ahead, gradient_buckets, parameter_buckets, reduce_behind

from .build import language

times = st.floats(0, 10)


def gradient_bytes(graph):
    return sum(s.bytes for s in graph.storages if s.role == "gradient")


@pytest.mark.parametrize("limit", [1.0, 2000.0, 1e9])
def test_buckets_hold_every_gradient_once_in_the_order_of_the_backward_pass(limit):
    graph = language("training")
    buckets = gradient_buckets(graph, limit)
    assert sum(b.bytes for b in buckets) == gradient_bytes(graph)
    held = [t for b in buckets for t in b.tensors]
    assert len({graph.tensors[t].storage for t in held}) == len(held)
    assert [b.at for b in buckets] == sorted(b.at for b in buckets)
    assert all(b.bytes >= limit for b in buckets[:-1])
    first, last = (graph.ops[b.at].module for b in (buckets[0], buckets[-1]))
    assert last == "embedding"
    assert limit > 1.0 or first == "head"


def test_parameters_are_gathered_in_the_order_of_their_use():
    graph = language("training")
    forward, backward = (parameter_buckets(graph, phase, 1.0) for phase in ("forward", "backward"))
    assert graph.ops[forward[0].at].module == "embedding"
    assert graph.ops[forward[-1].at].module == graph.ops[backward[0].at].module == "head"
    assert sum(b.bytes for b in forward) == sum(s.bytes for s in graph.storages if s.role == "parameter")
    assert sum(b.bytes for b in parameter_buckets(graph, "forward", 1e9)) == sum(b.bytes for b in forward)


@given(st.lists(st.tuples(times, times), max_size=6), times)
def test_both_streams_must_be_done(buckets, compute):
    ready = sorted(min(r, compute) for r, _ in buckets)
    sent = [s for _, s in buckets]
    total = reduce_behind(ready, sent, compute)
    assert max(compute, sum(sent)) <= total <= compute + sum(sent) + 1e-9
    assert reduce_behind(ready, [0.0] * len(ready), compute) == compute


def test_the_last_bucket_is_never_hidden():
    assert reduce_behind([5.0, 10.0], [3.0, 2.0], 10.0) == 12.0
    assert reduce_behind([5.0, 10.0], [7.0, 2.0], 10.0) == 14.0


@given(st.lists(st.tuples(times, times, times), min_size=1, max_size=6))
def test_gathering_ahead_hides_at_most_the_computation(rows):
    groups = [Group(*row) for row in rows]
    total = gather_ahead(groups)
    gather, compute, reduce = (sum(row[i] for row in rows) for i in range(3))
    assert max(rows[0][0] + compute, gather + reduce) <= total + 1e-9
    assert total <= gather + compute + reduce + 1e-9


def test_three_groups_by_hand():
    # gathers 0-2, 2-4, 5-7 (after the second group began); computed 2-5, 5-8, 8-11
    assert gather_ahead([Group(2.0, 3.0, 0.0)] * 3) == 11.0
    # gathers 0-4, 4-8, 8-12; computed 4-5, 8-9, 12-13
    assert gather_ahead([Group(4.0, 1.0, 0.0)] * 3) == 13.0
