from gnomon.measure.record import Span, Trace
from gnomon.report.markdown import markdown
from tests.store.build import forecast, measurement


def test_a_run_is_told_with_its_numbers(examination):
    page = markdown("run", [examination.measurement, forecast()])
    assert "## Measurement of sentence-embedding" in page
    assert "| p50 | " in page
    assert "### What tracing costs" in page
    assert "| H100-SXM | 250 ms | 125 ms to 500 ms | memory | 953.7 MiB | yes |" in page
    heaviest = max(examination.measurement.layers, key=lambda layer: layer.self_cpu_s)
    assert page.split("### Layers")[1].split("\n")[4].startswith(f"| `{heaviest.path}` |")
    assert "more are in the tables of `--format csv`" in page


def test_every_table_has_cells_for_its_columns(examination):
    odd = Trace("a|b *c*", "chrome", (Span("x | y\nz", "layer", 0.0, 1.0, None, None),), {}, ("lost `1`",))
    page = markdown("t", [examination.measurement, measurement(), odd, forecast()])
    block: list[str] = []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|"):
            block.append(line)
        elif block:
            counts = {row.replace("\\|", "").count("|") for row in block}
            assert len(counts) == 1, block
            block = []
    assert "- lost \\`1\\`" in page
    assert "x \\| y z" in page


def test_an_interval_that_is_not_known_is_not_made_up():
    from dataclasses import replace

    from gnomon.core.stats import Interval

    page = markdown("t", [replace(measurement(), latency={"p50": Interval(0.5, None, None, 0.95, 1)})])
    assert "| p50 | 500 ms | none: one session |" in page
