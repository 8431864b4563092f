"""The pictures of the documents show what the definitions say, and every one that a page names is drawn."""

import re
from xml.etree import ElementTree

import pytest

from gnomon.kernels.neighborhood_attention.problem import Problem
from tests.test_documents import ROOT, load

patterns = load(ROOT / "docs" / "patterns.py")
PICTURES = patterns.pictures()


def test_every_picture_that_a_page_names_is_drawn_and_no_other():
    named = {
        name
        for page in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"\(_pictures/([\w.-]+)\)", page.read_text("utf-8"))
    }
    assert named == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_the_same_each_time_and_valid(name):
    root = ElementTree.fromstring(PICTURES[name])
    assert root.tag.endswith("svg")
    assert patterns.pictures()[name] == PICTURES[name]


def test_a_panel_has_one_square_for_each_cell():
    mask = Problem.of((9,), 3).mask()
    text = patterns.svg([patterns.Panel("t", mask.astype(int))])
    seen, unseen = (
        re.search(rf'fill="{patterns._COLOURS[colour]}" d="([^"]*)"', text)[1].count("M")
        for colour in (patterns.SEEN, patterns.UNSEEN)
    )
    assert (seen, unseen) == (mask.sum(), 81 - mask.sum())


def test_pictures_are_written_where_the_documentation_looks(tmp_path):
    patterns.write(tmp_path / "pictures")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == set(PICTURES)
