import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import DamagedData
from gnomon.measure.record import Span
from gnomon.report.nesting import nest


@st.composite
def span_trees(draw):
    """Trees of spans whose ends are read with errors, in any order."""
    count = draw(st.integers(1, 25))
    spans = []
    for index in range(count):
        parent = draw(st.one_of(st.none(), st.integers(0, index - 1))) if index else None
        start, wall = draw(st.floats(0, 10)), draw(st.floats(0, 10))
        spans.append(Span(f"s{index}", "layer", start, wall, None, parent))
    order = draw(st.permutations(range(count)))
    place = {old: new for new, old in enumerate(order)}
    moved = [spans[old] for old in order]
    return [dataclasses.replace(s, parent=None if s.parent is None else place[s.parent]) for s in moved]


@given(span_trees())
def test_every_span_is_placed_once_inside_its_parent_and_beside_its_siblings(spans):
    placed = nest(spans)
    assert sorted(place.span for place in placed) == list(range(len(spans)))
    by_index = {place.span: place for place in placed}
    ends = {}
    for place in placed:
        assert place.start_s <= place.end_s
        parent = spans[place.span].parent
        if parent is None:
            assert place.depth == 0
        else:
            above = by_index[parent]
            assert above.start_s <= place.start_s
            assert place.end_s <= above.end_s
            assert (place.depth, place.track) == (above.depth + 1, above.track)
        before = ends.get((parent, place.track), float("-inf"))
        assert before <= place.start_s  # siblings and roots of one track in order, none over another
        ends[parent, place.track] = place.end_s


def test_times_that_fit_are_left_as_they_are():
    spans = [Span("call", "model", 0.0, 3.0, None, None), Span("a", "layer", 0.5, 1.0, None, 0)]
    assert [(p.start_s, p.end_s) for p in nest(spans)] == [(0.0, 3.0), (0.5, 1.5)]


def test_a_child_that_ends_after_its_parent_is_cut():
    spans = [Span("call", "model", 0.0, 1.0, None, None), Span("a", "layer", 0.5, 0.6, None, 0)]
    assert nest(spans)[1].end_s == 1.0


def test_calls_of_a_cpu_library_lie_in_their_operator():
    spans = [
        Span("step", "model", 0.0, 1.0, None, None),
        Span("addmm", "operator", 0.2, 0.5, None, 0),
        Span("mkl::sgemm", "kernel", 0.3, 0.3, None, 1, {"library": "MKL"}),
    ]
    call = next(place for place in nest(spans) if place.span == 2)
    assert (call.track, call.depth, call.start_s) == (0, 2, 0.3)


def test_kernels_run_on_a_track_of_their_own_because_they_follow_their_operator():
    spans = [
        Span("call", "model", 0.0, 1.0, None, None),
        Span("aten.mm.default", "operator", 0.1, 0.1, None, 0),
        Span("gemm", "kernel", 0.5, 0.9, None, 1),
    ]
    kernel = next(place for place in nest(spans) if place.span == 2)
    assert (kernel.track, kernel.start_s, kernel.end_s) == (1, 0.5, 1.4)


def test_a_parent_that_does_not_exist_is_damage():
    with pytest.raises(DamagedData, match=r"span 0 \(a\) names span 7 as parent; there are 1"):
        nest([Span("a", "layer", 0.0, 1.0, None, 7)])


def test_a_circle_of_parents_is_damage():
    circle = [Span("a", "layer", 0.0, 1.0, None, 1), Span("b", "layer", 0.0, 1.0, None, 0)]
    with pytest.raises(DamagedData, match="2 of 2 spans are their own ancestors"):
        nest(circle)
