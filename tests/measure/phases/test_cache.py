"""The cache model against a cache: an OrderedDict that really evicts."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.measure.phases.cache import COLD, Reuse, rows_of, stack_distances
from gnomon.zoo.graph import generate, order

streams = st.integers(1, 12).flatmap(lambda n: st.lists(st.integers(0, n), min_size=1, max_size=80))


def lru_hits(ids, rows):
    held, hits = OrderedDict(), 0
    for row in ids:
        if row in held:
            hits += 1
            held.move_to_end(row)
        else:
            held[row] = True
            if len(held) > rows:
                held.popitem(last=False)
    return hits


@given(streams, st.integers(0, 15))
def test_hits_are_those_of_a_cache_that_evicts(ids, rows):
    assert Reuse.of(np.array(ids)).hit_ratio(rows) == pytest.approx(lru_hits(ids, rows) / len(ids))


@given(streams)
def test_a_distance_is_the_number_of_other_rows_in_between(ids):
    for now, distance in enumerate(stack_distances(np.array(ids)).tolist()):
        earlier = [i for i in range(now) if ids[i] == ids[now]]
        assert distance == (len(set(ids[earlier[-1] + 1 : now])) if earlier else COLD)


@given(streams)
def test_a_larger_cache_never_hits_less(ids):
    reuse = Reuse.of(np.array(ids))
    for ratio in (reuse.hit_ratio, reuse.pinned_ratio):
        found = [ratio(rows) for rows in range(15)]
        assert found == sorted(found)
        assert found[0] == 0


@given(streams)
def test_a_cache_that_holds_every_row_misses_each_once(ids):
    reuse, distinct = Reuse.of(np.array(ids)), len(set(ids))
    assert reuse.distinct == distinct
    assert reuse.hit_ratio(distinct) == pytest.approx((len(ids) - distinct) / len(ids))
    assert reuse.pinned_ratio(distinct) == 1


@given(st.integers(1, 300))
def test_a_stream_of_one_row_misses_once(accesses):
    reuse = Reuse.of(np.zeros(accesses, dtype=np.int64))
    assert reuse.hit_ratio(1) == pytest.approx((accesses - 1) / accesses)


@given(streams)
def test_the_histogram_counts_every_access_but_the_first_of_each_row(ids):
    reuse = Reuse.of(np.array(ids))
    counts = reuse.histogram()
    assert sum(counts) == len(ids) - reuse.distinct
    for place, count in enumerate(counts):
        low, high = (0, 1) if place == 0 else (2 ** (place - 1), 2**place)
        assert count == ((reuse.distances >= low) & (reuse.distances < high)).sum()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 10))
def test_pinning_the_most_used_rows_is_the_best_choice_of_rows_to_pin(ids, rows):
    uses = sorted((ids.count(row) for row in set(ids)), reverse=True)
    assert Reuse.of(np.array(ids)).pinned_ratio(rows) == pytest.approx(sum(uses[:rows]) / len(ids))


def test_an_empty_stream_has_no_ratio():
    reuse = Reuse.of(np.zeros(0, dtype=np.int64))
    assert (reuse.hit_ratio(5), reuse.pinned_ratio(5), reuse.histogram(), reuse.distinct) == (None, None, (), 0)


def test_a_stream_that_is_none_and_a_cache_that_is_none_are_refused():
    with pytest.raises(UsageError, match="one row of whole numbers; got float64"):
        stack_distances(np.ones(3))
    with pytest.raises(UsageError, match=r"got int64, \(1, 3\)"):
        stack_distances(np.ones((1, 3), dtype=np.int64))
    with pytest.raises(UsageError, match="0 rows or more; got -1"):
        Reuse.of(np.arange(3)).hit_ratio(-1)
    with pytest.raises(UsageError, match="at least 1 feature; got 0"):
        rows_of(1024, 0)
    assert rows_of(2**20, 128) == 2048


# Deterministic: numpy's generators are the same on every machine. The card of the method has, from generators of its
# own, .039/.075/.219 in random order, .703/.713/.752 by community, .013/.050/.198 with shuffled edges; on its power-law
# graph .081/.208/.446 for LRU and .209/.357/.595 for pinning.
ROWS = (250, 1000, 4000)
RANDOM = (0.0391, 0.0754, 0.2194)
COMMUNITY = (0.7029, 0.7128, 0.7511)
SHUFFLED = (0.0127, 0.0497, 0.1970)
POWER_LAW = (0.0819, 0.2088, 0.4494)
PINNED = (0.2128, 0.3610, 0.5970)


def ratios(of, digits=4):
    return tuple(round(of(rows), digits) for rows in ROWS)


def test_hit_ratios_of_the_community_graph_are_what_they_were():
    graph, community = generate.communities(20_000, 200, inside=8, outside=2, seed=0)
    by_community = graph.renamed(np.argsort(community, kind="stable"))
    shuffled_edges = np.random.default_rng(0).permutation(graph.sources)
    assert ratios(Reuse.of(graph.sources).hit_ratio) == RANDOM
    assert ratios(Reuse.of(by_community.sources).hit_ratio) == COMMUNITY
    assert ratios(Reuse.of(shuffled_edges).hit_ratio) == SHUFFLED
    assert ratios(Reuse.of(graph.renamed(order.by_degree(graph)).sources).hit_ratio) == pytest.approx(RANDOM, abs=0.01)


def test_hit_ratios_of_the_power_law_graph_are_what_they_were():
    reuse = Reuse.of(generate.power_law(20_000, 219_473, seed=0).sources)
    assert ratios(reuse.hit_ratio) == pytest.approx(POWER_LAW, abs=1e-3)  # powers round in their own way
    assert ratios(reuse.pinned_ratio) == pytest.approx(PINNED, abs=1e-3)
