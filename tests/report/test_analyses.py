import csv
import io

import pytest
from rich.console import Console

from gnomon.measure.analyses import registry
from gnomon.measure.analyses.analysis import Column, Form
from gnomon.measure.analyses.subject import of_measurements
from gnomon.report.analyses import as_csv, as_html, as_markdown, print_analysis, print_offers, shown

FORM = Form(
    "demo",
    "demo",
    "What is it?",
    (Column("name", "text"), Column("time_s", "s"), Column("moved_bytes", "B"), Column("share", "share")),
    frozenset(),
)
DEMO = FORM.answer("t", [("a|b <c>[d]", 1.5e-3, 2048.0, 0.5), ("", None, None, None)], ["a note", "a note", ""])
MISSING = FORM.cannot("t", "nobody looked")


def printed(analysis, **options):
    console = Console(file=io.StringIO(), width=100)
    print_analysis(console, analysis, **options)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def answers(examination):
    subject = of_measurements([examination.measurement], examination.graph, examination.device)
    return [registry.analyze(subject, name) for name in registry.FORMS]


def test_cells_are_told_in_their_units_and_what_is_not_known_is_no_zero():
    assert [shown(1.5e-3, "s"), shown(-1e-3, "s"), shown(2048.0, "B"), shown(0.5, "share"), shown(2e9, "FLOP/s")] == [
        "1.5 ms", "-1 ms", "2 KiB", "50.0 %", "2 GFLOP/s"]  # fmt: skip
    assert [shown(None, "s"), shown(True, "bool"), shown(3, "count"), shown(2.5, "x")] == [
        "-",
        "yes",
        "3",
        "2.5\N{MULTIPLICATION SIGN}",
    ]


def test_csv_holds_the_numbers_as_they_are_with_their_units_in_the_head():
    head, first, second, note = csv.reader(io.StringIO(as_csv([DEMO])))
    assert head == ["name", "time_s [s]", "moved_bytes [B]", "share [share]"]
    assert [first[0], float(first[1]), float(first[2])] == ["a|b <c>[d]", 1.5e-3, 2048.0]
    assert second == ["", "", "", ""]
    assert note == ["# a note"]  # each note once


def test_every_number_of_every_analysis_survives_csv(answers):
    for answer in answers:
        if answer.missing:
            continue
        _, *lines = csv.reader(io.StringIO(as_csv([answer])))
        for row, line in zip(answer.rows, lines, strict=False):
            for cell, text in zip(row, line, strict=True):
                assert text == "" if cell is None else text == str(cell)


def test_markdown_keeps_its_columns_whatever_is_in_a_cell():
    lines = as_markdown([DEMO]).splitlines()
    assert "| a\\|b <c>[d] | 1.5 ms | 2 KiB | 50.0 % |" in lines
    assert "- a note" in lines
    assert "- not answered: nobody looked" in as_markdown([MISSING])


def test_html_is_escaped_and_names_its_section():
    page = as_html([DEMO, MISSING])
    assert "a|b &lt;c&gt;[d]" in page
    assert '<section id="demo">' in page
    assert "not answered: nobody looked" in page
    assert page.count("<tr>") == 3


def test_the_terminal_shows_the_first_rows_and_says_how_many_are_left():
    shown_rows = printed(DEMO, most=1)
    assert "a|b <c>[d]" in shown_rows
    assert "and 1 more rows; --rows 2 shows all" in shown_rows
    assert "more rows" not in printed(DEMO, most=None)


def test_a_missing_answer_is_one_sentence_and_no_table():
    assert "not answered: nobody looked" in printed(MISSING)
    assert "moved" not in printed(MISSING)


def test_every_analysis_can_be_printed_every_way(answers):
    for answer in answers:
        assert answer.title in printed(answer, most=3)
    assert as_markdown(answers).count("\n## ") == len(answers) - 1
    assert as_html(answers).count("<section") == len(answers)


def test_the_list_says_what_can_be_answered():
    console = Console(file=io.StringIO(), width=100)
    print_offers(console, [(FORM, None), (FORM, "nobody looked")], "t")
    text = console.file.getvalue()
    assert "analyses of t" in text
    assert "yes" in text
    assert "no: nobody looked" in text


def test_a_row_that_does_not_fit_its_columns_is_refused():
    with pytest.raises(ValueError, match="demo: wanted 4 cells, got 1"):
        FORM.answer("t", [("a",)])


def test_a_single_row_of_many_columns_stands_upright():
    columns = tuple(Column(f"column_{i}", "count") for i in range(9))
    answer = Form("wide", "wide", "How wide?", columns, frozenset()).answer("t", [tuple(range(9))], [])
    lines = printed(answer).splitlines()
    assert [line.split() for line in lines if "column_" in line] == [[f"column_{i}", str(i)] for i in range(9)]
