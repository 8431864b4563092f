import dataclasses
import sys
import xml.etree.ElementTree as ET

import pytest

from gnomon.core.errors import NotRunnable
from gnomon.report import figures

SVG = "{http://www.w3.org/2000/svg}"


def _draw(examination, width=figures.WIDE):
    e = examination
    verdicts = {change.recipe: change.verdict for change in e.changes}
    return {
        "latency": figures.latency(e.level("model"), e.measurement.latency, width),
        "roofline": figures.roofline(e.operators(), e.device, "float32", width),
        "forecasts": figures.forecasts(e.ranked_forecasts(), e.device.name, e.measurement.latency["p50"], width),
        "recipes": figures.ratios(e.comparison.ratios, verdicts, "eager", width),
    }


@pytest.fixture(scope="module")
def drawings(examination):
    return _draw(examination)


def test_the_same_records_give_the_same_bytes(examination, drawings):
    assert _draw(examination) == drawings


def test_each_picture_is_xml_with_text_that_can_be_selected_and_a_description(drawings):
    for drawing in drawings.values():
        root = ET.fromstring(drawing)
        assert root.get("role") == "img"
        assert len(root.get("aria-label")) > 20
        assert list(root.iter(f"{SVG}text"))


def test_pictures_bring_no_style_no_font_and_no_address_into_the_page(drawings):
    for drawing in drawings.values():
        assert "<style" not in drawing
        assert "font-family:" not in drawing
        assert "matplotlib.org" not in drawing
        assert "#0102" not in drawing  # every stand-in colour has become a variable of the page
        assert "#0304" not in drawing


def test_every_device_and_recipe_is_named_and_every_point_has_a_tooltip(examination, drawings):
    for forecast in examination.forecasts:
        assert f">{forecast.device}" in drawings["forecasts"]
    assert drawings["forecasts"].count("<title>") == len(examination.forecasts)
    for change in examination.changes:
        assert (f">{change.recipe}<" in drawings["recipes"]) == (change.speedup is not None)
    costed = [row for row in examination.operators() if row.intensity and row.share >= 0.001]
    assert drawings["roofline"].count("<title>") == len(costed)


def test_a_point_below_the_roof_is_drawn_below_the_roof(drawings):
    """The flat roof is the topmost line; SVG counts downwards."""
    root = ET.fromstring(drawings["roofline"])
    points = [
        float(use.get("y"))
        for group in root.iter(f"{SVG}g")
        if "operator-" in group.get("id", "")
        for use in group.iter(f"{SVG}use")
    ]
    lines = [
        float(part.split()[1])
        for path in root.iter(f"{SVG}path")
        if "stroke: var(--ink" in path.get("style", "")
        for part in path.get("d").replace("M", "L").split("L")
        if part.strip()
    ]
    assert points
    assert min(points) > min(lines)


def test_names_that_look_like_mathematics_or_markup_are_taken_literally(examination):
    forecasts = [dataclasses.replace(examination.forecasts[0], device="<b>$\\frac$&")]
    drawing = figures.forecasts(forecasts, "here", None)
    assert "<b>" not in drawing
    assert "&lt;b&gt;$\\frac$&amp;" in drawing


@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
def test_one_session_one_device_and_one_recipe_are_enough(examination, width):
    e, run = examination, examination.level("model")
    one = dataclasses.replace(run.sessions[0], wall_s=(0.1,))
    unbounded = dataclasses.replace(e.measurement.latency["p50"], low=None, high=None, n=1)
    assert figures.latency(dataclasses.replace(run, sessions=(one,)), {"p50": unbounded}, width)
    assert figures.forecasts(e.forecasts[:1], "elsewhere", None, width)
    name, test = next(iter(e.comparison.ratios.items()))
    alone = dataclasses.replace(test, speedup=dataclasses.replace(test.speedup, value=1.0, low=None, high=None))
    assert figures.ratios({name: alone}, {}, "eager", width)


def test_an_axis_over_a_short_range_still_has_numbers(examination):
    forecast = dataclasses.replace(examination.forecasts[0])
    total = dataclasses.replace(forecast.total, value_s=2.5e-3, low_s=2.2e-3, high_s=3.1e-3)
    drawing = figures.forecasts([dataclasses.replace(forecast, total=total)], "elsewhere", None)
    assert drawing.count(" ms<") >= 2


def test_without_matplotlib_it_is_said_how_to_get_it(examination, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NotRunnable, match=r"pictures need matplotlib.*pip install matplotlib"):
        figures.latency(examination.level("model"), {})


def test_settings_of_matplotlib_are_as_before(drawings):
    import matplotlib

    assert matplotlib.rcParams["svg.fonttype"] == "path"
