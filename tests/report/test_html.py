import dataclasses
import re
import sys
from html.parser import HTMLParser

import pytest

from gnomon.report import html, text

from .example import make_examination

_VOID = {"meta", "link", "br", "img", "hr", "input", "col"}


class _Reader(HTMLParser):
    """Collects what the tests ask for and checks that elements are closed in the order in which they were opened."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.ids, self.addresses, self.tags, self.loads = [], [], [], []
        self.visible, self.cells, self._open = [], [], []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        for key, value in attributes:
            if key == "id":
                self.ids.append(value)
            if key in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                self.addresses.append(value)
            if key == "style" and "url(" in value:
                self.loads.append(value)
        if tag not in _VOID:
            self._open.append(tag)
        if tag in ("td", "dd"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self._open):
            self.visible.append(data)
        if {"td", "dd"} & set(self._open):
            self.cells[-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.visible).split())


@pytest.fixture
def no_pictures(monkeypatch):
    """As on a machine without matplotlib; also spares a test the time of drawing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture(scope="module")
def reader(page):
    return _Reader(page)


def test_nothing_is_loaded_from_outside(page, reader):
    for address in reader.addresses:
        assert address.startswith(("#", "data:")), address
    for style in reader.loads:
        assert re.findall(r"url\(([^)]*)\)", style) == [m for m in re.findall(r"url\((#[^)]*)\)", style)]
    assert "@import" not in page
    assert "url(http" not in page
    assert not [tag for tag, _ in reader.tags if tag in ("iframe", "object", "embed", "img", "base", "form")]
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }  # names of XML vocabularies, never fetched


def test_a_browser_is_told_to_load_nothing(reader):
    policy = next(a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_every_id_is_unique_and_every_anchor_leads_somewhere(page, reader):
    assert len(reader.ids) == len(set(reader.ids))
    anchors = {address[1:] for address in reader.addresses if address.startswith("#")}
    anchors |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert anchors <= set(reader.ids)


def test_tables_have_captions_and_headers_with_a_scope(reader):
    kinds = [tag for tag, _ in reader.tags]
    assert kinds.count("caption") == kinds.count("table") >= 4
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in reader.tags if tag == "th")
    assert all("aria-label" in attributes for _, attributes in reader.tags if attributes.get("role") == "img")


def test_it_can_be_read_without_javascript(reader):
    """No text is hidden until a script runs, and no element calls one."""
    assert not [key for _, attributes in reader.tags for key in attributes if key.startswith("on")]
    assert not [tag for tag, attributes in reader.tags if "hidden" in attributes]


def test_no_cell_is_blank(reader):
    assert len(reader.cells) > 200
    assert all(cell.strip() for cell in reader.cells)


def test_markup_in_names_is_shown_and_never_run(examination):
    evil = "<script>alert('1')</script>"
    task = dataclasses.replace(examination.task, name=evil, description=f'"><img src=x onerror={evil}>')
    change = dataclasses.replace(examination.changes[0], recipe=evil, reason=evil)
    forecast = dataclasses.replace(examination.forecasts[1], device=evil, warnings=(evil,))
    measurement = dataclasses.replace(examination.measurement, task=evil, warnings=(evil,))
    attacked = dataclasses.replace(
        examination, task=task, measurement=measurement, changes=(change,), forecasts=(forecast,), command=evil,
        run_id=evil, warnings=(evil,), memory={evil: 1.0},
    )  # fmt: skip
    page = html.render(attacked)
    reader = _Reader(page)
    assert [tag for tag, _ in reader.tags].count("script") == 1  # our own
    assert "img" not in [tag for tag, _ in reader.tags]
    assert reader.text.count(evil) >= 8


def test_the_summary_says_the_four_things(examination, reader):
    best, fastest = examination.best_change(), examination.fastest_forecast()
    for said in (
        str(text.interval(examination.measurement.latency["p50"])),
        text.times(best.speedup.speedup.value),
        best.recipe,
        "spearman 0.8203 → 0.8171, mean cosine 0.9912",
        fastest.device,
        "Bound here by compute",
    ):
        assert said in reader.text


def test_everything_that_was_found_out_is_in_the_page(examination, reader):
    for forecast in examination.forecasts:
        assert forecast.device in reader.text
        assert all(warning in reader.text for warning in forecast.warnings)
    for change in examination.changes:
        assert change.recipe in reader.text
        assert change.reason in reader.text
    for row in examination.operators():
        assert text.seconds(row.cpu_s) in reader.text
    for row in examination.layers():
        assert row.label in reader.text
    for fact in (examination.command, examination.run_id, *examination.measurement.environment.packages.values()):
        assert fact in reader.text
    for digest in examination.task.lock.values():
        assert digest in reader.text


def test_each_forecast_stands_with_its_interval_and_the_claim_is_modest(examination, reader):
    for forecast in examination.forecasts:
        assert str(text.estimate(forecast.total)) in reader.text
    assert "forecasts from physics alone" in reader.text
    measured = text.interval(examination.measurement.latency["p50"])
    assert f"the measurement {measured.value} {measured.interval}: inside the forecast's interval" in reader.text


def test_unknown_operators_are_listed(no_pictures):
    page = html.render(make_examination(layers=1, unknown=True))
    assert "not in the forecasts: aten.mystery.default (1 call)" in _Reader(page).text
    assert "≥ " in page  # the FLOP of a module with an unknown operator inside are a lower bound


def test_a_device_without_the_memory_is_marked(examination, no_pictures):
    small = dataclasses.replace(examination.forecasts[3], fits=False)
    page = html.render(dataclasses.replace(examination, forecasts=(small,)))
    assert "does not fit" in _Reader(page).text


def test_without_matplotlib_the_report_has_notes_in_place_of_pictures(examination, no_pictures):
    reader = _Reader(html.render(examination))
    assert reader.text.count("No picture: matplotlib is not installed here") == 4
    assert examination.best_change().recipe in reader.text


def test_a_bare_measurement_still_makes_a_report(examination):
    """One session of one call, nothing traced, nothing forecast, nothing tried: every gap is named."""
    m = examination.measurement
    session = dataclasses.replace(m.levels[0].sessions[0], wall_s=(0.2,), cpu_s=(0.2,), page_faults=())
    alone = {k: dataclasses.replace(v, low=None, high=None, n=1) for k, v in m.latency.items() if k == "p50"}
    measurement = dataclasses.replace(
        m, levels=(dataclasses.replace(m.levels[0], sessions=(session,)),), latency=alone, cpu_latency={}, layers=(),
        operators=(), spans=(), operators_cover=None,
    )  # fmt: skip
    bare = dataclasses.replace(
        examination, measurement=measurement, forecasts=(), comparison=None, changes=(), memory=None
    )
    reader = _Reader(html.render(bare))
    for said in (
        "[one session: no interval]", "Layers were not measured", "Operators were not measured", "No call was traced",
        "No device was forecast", "No recipe was tried", "Page faults per call not measured",
    ):  # fmt: skip
        assert said in reader.text
    assert all(cell.strip() for cell in reader.cells)


def test_a_variant_that_failed_is_told(examination, no_pictures):
    broken = dataclasses.replace(examination.comparison.variants[1], sessions=(), failure="ran out of memory")
    comparison = dataclasses.replace(examination.comparison, variants=(examination.comparison.variants[0], broken))
    page = html.render(dataclasses.replace(examination, comparison=comparison))
    assert "onnx-int8 failed: ran out of memory" in _Reader(page).text


def test_the_file_is_written_and_the_same_records_give_the_same_file(examination, page, tmp_path):
    path = html.write(examination, tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == page
