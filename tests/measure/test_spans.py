import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.measure.record import Span
from gnomon.measure.spans import parents, with_parents


def span(start_ns, end_ns, level="layer", name=""):
    return Span(name, level, start_ns * 1e-9, (end_ns - start_ns) * 1e-9, None, None)


@st.composite
def trees(draw):
    """Strictly nested random intervals: (spans, the parent of each), levels growing deeper or staying."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    offset = draw(st.sampled_from([0, 10**9, 3 * 10**12]))
    spans, truth = [], []

    def grow(start, end, depth, parent):
        index = len(spans)
        spans.append(span(offset + start, offset + end, ("model", "layer", "operator", "kernel")[depth]))
        truth.append(parent)
        at = start + 1
        while len(spans) < 60 and end - at > 6 and rng.random() < 0.8:
            low = rng.randint(at, end - 4)
            high = rng.randint(low + 2, end - 1)
            grow(low, high, min(depth + rng.randint(0, 1), 3), index)
            at = high + 1

    grow(0, draw(st.integers(10, 100_000)), 0, None)
    return spans, truth


@given(trees(), st.randoms(use_true_random=False))
def test_removed_parents_are_found_again_in_any_order(tree, rng):
    spans, truth = tree
    order = list(range(len(spans)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    found = parents([spans[i] for i in order])
    assert [found.parent[place[i]] for i in range(len(spans))] == [None if p is None else place[p] for p in truth]
    assert found.ambiguous == ()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from(["model", "layer", "operator"]))))
def test_of_any_intervals_the_parent_is_the_smallest_that_contains(raw):
    """The definition as a double loop over all pairs; ties are looked at in tests of their own."""
    depth = {"model": 0, "layer": 1, "operator": 2}
    boxes = [(min(a, b), max(a, b), level) for a, b, level in raw]
    found = parents([span(*box) for box in boxes]).parent
    for i, (start, end, level) in enumerate(boxes):
        lengths = [
            e - s
            for j, (s, e, other) in enumerate(boxes)
            if j != i
            and s <= start
            and end <= e
            and depth[other] <= depth[level]
            and (s, e, other) != (start, end, level)
        ]
        parent = found[i]
        if parent is None:
            assert lengths == []
        elif boxes[parent] != boxes[i]:
            assert boxes[parent][1] - boxes[parent][0] == min(lengths)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1))
def test_parents_never_form_a_cycle(raw):
    found = parents([span(min(p), max(p)) for p in raw]).parent
    for i in range(len(found)):
        seen, at = set(), i
        while at is not None:
            assert at not in seen
            seen.add(at)
            at = found[at]


def test_of_equal_spans_the_shallower_level_is_the_parent():
    assert parents([span(0, 9, "operator"), span(0, 9, "layer"), span(0, 9, "model")]) == ((1, 2, None), ())


def test_equal_spans_of_one_level_are_reported_and_the_earlier_is_the_parent():
    assert parents([span(0, 9), span(3, 5), span(3, 5)]) == ((None, 0, 1), (2,))


def test_a_span_inside_two_that_cross_is_reported():
    found = parents([span(0, 10), span(4, 14), span(5, 9, "operator")])
    assert found.parent[2] in (0, 1)
    assert found.ambiguous == (2,)


def test_a_deeper_level_is_never_the_parent_of_a_shallower():
    assert parents([span(0, 10, "operator"), span(2, 8, "layer")]) == ((None, None), ())


@pytest.mark.parametrize("offset", [0.0, 1e-9 / 3, 1e6])
def test_times_in_seconds_that_are_no_whole_nanoseconds_still_nest(offset):
    spans = [Span("", "layer", offset + 0.1 * i, 1.0 - 0.2 * i, None, None) for i in range(5)]
    assert parents(spans).parent == (None, 0, 1, 2, 3)


def test_parents_are_filled_into_the_records():
    spans, ambiguous = with_parents([span(0, 10), span(2, 3)])
    assert spans == (span(0, 10), replace(span(2, 3), parent=0))
    assert ambiguous == 0
