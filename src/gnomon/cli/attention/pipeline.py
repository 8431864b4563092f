"""`gnomon attention pipeline`: uneven sequences through an encoder that is cut into stages."""

from pathlib import Path

import click

from gnomon.cli._common import console, json_option, print_json
from gnomon.cli.attention._options import as_usage, at_least_one


@click.command()
@click.option("--lengths", metavar="N,N,...", help="Lengths of one batch. Default: drawn.")
@click.option("--batch", type=at_least_one, default=16, show_default=True, help="Lengths to draw.")
@click.option("--median", type=float, default=120.0, show_default=True, help="Of the log-normal law.")
@click.option("--sigma", type=float, default=0.6, show_default=True, help="Of the law, as a logarithm.")
@click.option("--longest", type=at_least_one, default=384, show_default=True, help="Lengths are clipped here.")
@click.option("--draws", type=at_least_one, default=20, show_default=True, help="Batches to average over.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--layers", type=at_least_one, default=12, show_default=True)
@click.option("--width", type=at_least_one, default=768, show_default=True)
@click.option("--ffn", type=at_least_one, default=3072, show_default=True)
@click.option("--top-k", type=at_least_one, default=30, show_default=True, help="Keys that a query keeps.")
@click.option(
    "--stages", type=at_least_one, help="Cut by priority into so many. Default: projections, attention, rest."
)
@click.option("--budget", type=at_least_one, default=3000, show_default=True, help="Units (DSPs) to share out.")
@click.option("--rate", type=float, default=1e9, show_default=True, help="Multiply-adds a second of one unit.")
@click.option("--buffer", type=at_least_one, default=1, show_default=True, help="Slots of the buffered arrangements.")
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the schedule of the first batch, sorted and unbuffered, for Perfetto.")  # fmt: skip
@json_option
def command(
    lengths: str | None,
    batch: int,
    median: float,
    sigma: float,
    longest: int,
    draws: int,
    seed: int,
    layers: int,
    width: int,
    ffn: int,
    top_k: int,
    stages: int | None,
    budget: int,
    rate: float,
    buffer: int,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Send batches of uneven length through a pipeline of stages sized for the average length.

    Padded or not, dense or sparse, in the order given or sorted, with and without buffers: makespan, speed-up over
    dense padded, and the share of time in which stages work on what is no padding.
    """
    from gnomon.core.gantt import chrome_trace
    from gnomon.forecast.length_aware import Setting, draw_lengths, run_all, summary
    from gnomon.report.attention import print_pipeline
    from gnomon.report.files import write_text

    if rate <= 0:
        raise click.BadParameter(f"wanted a positive number, got {rate}", param_hint="--rate")
    with as_usage():
        setting = Setting(width, ffn, top_k, layers, budget, stages, buffer, rate)
        batches = (
            [_lengths(lengths)]
            if lengths is not None
            else [draw_lengths(batch, median, sigma, seed + i, min(8, longest), longest) for i in range(draws)]
        )
        runs = [run_all(one, setting) for one in batches]
    rows = summary(runs)
    if trace is not None:
        write_text(trace, chrome_trace(runs[0]["sparse sorted"].bars(), "length-aware pipeline"))
        click.echo(f"written: {trace}", err=True)
    if as_json:
        print_json({"setting": setting._asdict(), "batches": batches, "arrangements": [row._asdict() for row in rows],
                    "stages": {name: run.stages for name, run in runs[0].items()}})  # fmt: skip
        return
    print_pipeline(console(), rows, {name: run.stages for name, run in runs[0].items()}, len(batches))


def _lengths(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"wanted whole numbers with commas between them, got {text!r}", param_hint="--lengths")
    return [int(part) for part in parts]
