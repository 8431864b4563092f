import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from gnomon.report import terminal, text
from gnomon.report.stored import compare_measurements


def _printed(function, *arguments, width=100, **named):
    """What a pipe gets: no colours, no control characters."""
    out = io.StringIO()
    function(Console(file=out, width=width), *arguments, **named)
    return out.getvalue()


def _words(printed):
    return " ".join(printed.split())


@pytest.fixture(scope="module")
def printed(examination):
    return _printed(terminal.print_examination, examination, path=Path("out/report.html"))


def test_it_is_plain_text_of_at_most_100_columns(examination, printed):
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) <= 100
    wide = _printed(terminal.print_examination, examination, width=300)
    assert max(map(len, wide.splitlines())) <= 100


def test_it_stays_within_a_narrow_terminal(examination):
    narrow = _printed(terminal.print_examination, examination, width=60)
    assert max(map(len, narrow.splitlines())) <= 60


def test_the_examination_in_short_has_all_its_parts(examination, printed):
    words = _words(printed)
    for forecast in examination.forecasts:
        assert forecast.device in words
        assert str(text.estimate(forecast.total)) in words
    for change in examination.changes:
        assert f"{change.recipe}: {change.reason}" in words
    assert str(text.interval(examination.measurement.latency["p50"])) in words
    assert "this machine" in words
    assert examination.command in words
    assert printed.rstrip().endswith("report: out/report.html")


def test_layers_that_differ_in_a_number_are_one_row(printed):
    row = next(line for line in printed.splitlines() if "encoder.layer.*.intermediate" in line)
    assert " Linear " in row
    assert " 6 " in row


def test_brackets_in_names_are_no_markup(examination):
    change = dataclasses.replace(examination.changes[0], recipe="[red]odd[/red]", reason="[bold]why")
    printed = _printed(terminal.print_changes, [change])
    assert printed.count("[red]odd[/red]") == 2  # in the table and before the reason
    assert "[bold]why" in printed


def test_a_measurement_shows_levels_and_cold_start(examination):
    words = _words(_printed(terminal.print_measurement, examination.measurement))
    for said in ("cold start", "build the model 420 ms [420, 420]", "addmm", "tracing costs: layer", "encoder.layer.*"):
        assert said in words


def test_a_measurement_of_the_model_level_alone_has_no_empty_tables(examination):
    m = examination.measurement
    printed = _printed(
        terminal.print_measurement, dataclasses.replace(m, layers=(), operators=(), levels=m.levels[:1], cpu_latency={})
    )
    assert "layers" not in printed
    assert "operators" not in printed
    assert "not measured" in printed


def test_forecasts_are_ranked_and_those_that_do_not_fit_are_last(examination):
    quick = dataclasses.replace(examination.ranked_forecasts()[0], device="Tiny", fits=False)
    printed = _printed(terminal.print_forecasts, [*examination.forecasts, quick], examination.measurement)
    first_words = [line.split()[0] for line in printed.splitlines() if line.strip()]
    others = [f.device.split()[0] for f in examination.forecasts]
    assert first_words.index("Tiny") > max(first_words.index(name) for name in others)
    assert " needs " in printed[printed.index("Tiny") :]
    assert "measured here: " in printed


def test_unknown_operators_and_warnings_are_told_once_with_their_devices(examination):
    forecasts = [dataclasses.replace(f, unknown_ops={"aten.x.default": 2}) for f in examination.forecasts]
    words = _words(_printed(terminal.print_forecasts, forecasts))
    assert words.count("aten.x.default (2)") == 1
    assert words.count("P100, P4: no tensor cores") == 1


def test_operators_of_one_device_are_summed_by_kind(examination):
    forecast = examination.forecasts[0]
    op = forecast.ops[0]
    ops = tuple(dataclasses.replace(op, module=f"layer.{i}") for i in range(3))
    words = _words(_printed(terminal.print_forecast_operators, dataclasses.replace(forecast, ops=ops), 1))
    assert "embedding layer.* 3 3 µs [1.5, 6] 100 % memory" in words


def test_a_recipe_without_a_speed_is_not_measured(examination):
    printed = _printed(terminal.print_changes, [c for c in examination.changes if c.speedup is None])
    assert printed.count("not measured") == 3  # speed, quality, cosine


def test_a_comparison_shows_baseline_ratios_and_failures(examination):
    comparison = examination.comparison
    broken = dataclasses.replace(comparison.variants[1], name="broken", sessions=(), failure="ran out of memory")
    words = _words(
        _printed(terminal.print_comparison, dataclasses.replace(comparison, variants=(*comparison.variants, broken)))
    )
    assert f"1{text.TIMES} baseline" in words
    assert str(text.ratio(comparison.ratios["compile"].speedup)) in words
    assert "broken failed: ran out of memory" in words


def test_two_stored_measurements_say_what_else_differs(examination):
    first = examination.measurement
    packages = {**first.environment.packages, "torch": "2.9.0"}
    environment = dataclasses.replace(first.environment, packages=packages, threads=2)
    second = dataclasses.replace(first, environment=environment)
    words = _words(_printed(terminal.print_stored_comparison, compare_measurements("run-a", first, "run-b", second)))
    assert "run-b, no difference within 2 %: it takes 0 % longer than run-a" in words
    assert "cannot be seen (80 % power)" in words
    assert "torch 2.13.0+cpu 2.9.0" in words
    assert "software, setting differ at once" in words
