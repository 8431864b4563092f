import xml.etree.ElementTree as ET
from itertools import pairwise

from hypothesis import given

from gnomon.measure.record import Span
from gnomon.report import flame

from .test_nesting import span_trees

SVG = "{http://www.w3.org/2000/svg}"


@given(span_trees())
def test_nothing_is_outside_and_children_are_no_wider_than_their_parent(spans):
    found = flame.rectangles(spans, {})
    by_index = {r.index: r for r in found}
    inside = {}
    for r in found:
        assert r.x >= 0
        assert r.width >= 0
        assert r.x + r.width <= 1 + 1e-9
        inside[spans[r.index].parent] = inside.get(spans[r.index].parent, 0.0) + r.width
    for parent, width in inside.items():
        if parent is not None:
            assert width <= by_index[parent].width + 1e-9


@given(span_trees())
def test_rectangles_of_one_row_do_not_overlap(spans):
    rows = {}
    for r in flame.rectangles(spans, {}):
        rows.setdefault(r.row, []).append((r.x, r.x + r.width))
    for row in rows.values():
        row.sort()
        assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(row))


def test_children_that_fill_their_parent_are_as_wide_together(examination):
    spans = examination.measurement.spans
    root = next(r for r in flame.rectangles(spans, {}) if spans[r.index].parent is None)
    assert (root.x, root.width, root.row) == (0.0, 1.0, 0)
    parts = sum(r.width for r in flame.rectangles(spans, {}) if spans[r.index].parent == root.index)
    assert 0.99 < parts <= 1.0


def test_operators_take_the_category_of_the_graph_and_modules_have_their_own(examination):
    categories = {"addmm": "matmul"}
    found = {r.label: r.category for r in flame.rectangles(examination.measurement.spans, categories)}
    assert found["addmm"] == "matmul"
    assert found["gelu"] == "unknown"
    assert found["layer.0"] == "module"


def test_the_picture_is_xml_with_a_tooltip_for_each_span(examination):
    spans = examination.measurement.spans
    picture = ET.fromstring(flame.svg(spans, {}).strip())
    tips = [node.text for node in picture.iter(f"{SVG}title")]
    assert len(tips) == len(spans)
    assert any("of the call" in tip and "module: encoder.layer.5.output" in tip for tip in tips)


def test_the_narrowest_are_left_out_and_counted(examination):
    spans = examination.measurement.spans
    drawn = flame.svg(spans, {}, most=10)
    assert drawn.count("<title>") == 10
    assert f"{len(spans) - 10} narrower spans are not drawn" in drawn


def test_names_are_escaped():
    spans = [Span("<script>alert(1)</script>", "model", 0.0, 1.0, None, None)]
    assert "<script>" not in flame.svg(spans, {})


def test_without_time_there_is_nothing_to_draw():
    assert flame.svg([], {}) == ""
    assert flame.svg([Span("call", "model", 0.0, 0.0, None, None)], {}) == ""
