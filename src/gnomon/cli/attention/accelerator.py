"""`gnomon attention accelerator`: DOTA's accelerator, simulated."""

from pathlib import Path

import click

from gnomon.cli._common import console, json_option, print_json
from gnomon.cli.attention._options import as_usage, at_least_one


@click.command()
@click.option("--tokens", type=at_least_one, default=512, show_default=True, help="n; a mask from a file has its own.")
@click.option("--width", type=at_least_one, default=768, show_default=True, help="d.")
@click.option("--heads", type=at_least_one, default=12, show_default=True, help="h; a mask from a file has its own.")
@click.option("--head-dim", type=at_least_one, help="Default: width / heads.")
@click.option("--ffn", type=at_least_one, help="Default: 4 x width.")
@click.option("--rank", type=int, default=16, show_default=True, help="Of the detector, for each head.")
@click.option("--bits", type=int, default=4, show_default=True, help="Of the detector: 2, 4, 8 or 16.")
@click.option("--retention", type=float, default=0.1, show_default=True, help="Share of keys that a query keeps.")
@click.option("--mask", "mask_file", type=click.Path(path_type=Path), metavar="FILE",
              help="What a trained model keeps, bool [h, n, n], .npy or .pt. Default: a stand-in.")  # fmt: skip
@click.option("--causal", "is_causal", is_flag=True, help="Dense, and the stand-in, look back only.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the stand-in.")
@click.option("--lanes", type=int, default=4, show_default=True)
@click.option("--array", default="32x16", show_default=True, metavar="ROWSxCOLS", help="Elements of a lane.")
@click.option("--parallel", "queries", type=int, default=4, show_default=True, help="T, queries taken together.")
@click.option("--sram", default="640KiB", show_default=True, metavar="SIZE", help="Of one lane.")
@click.option("--sram-rate", type=int, default=512, show_default=True, help="Bytes a cycle, of one lane.")
@click.option("--dram-rate", type=int, default=128, show_default=True, help="Bytes a cycle, for all lanes.")
@click.option("--reread/--read-once", "splits", default=True, show_default=True,
              help="May a shared key be read again so that no query waits?")  # fmt: skip
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write when each unit works, for Perfetto.")  # fmt: skip
@json_option
def command(
    tokens: int,
    width: int,
    heads: int,
    head_dim: int | None,
    ffn: int | None,
    rank: int,
    bits: int,
    retention: float,
    mask_file: Path | None,
    is_causal: bool,
    seed: int,
    lanes: int,
    array: str,
    queries: int,
    sram: str,
    sram_rate: int,
    dram_rate: int,
    splits: bool,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Simulate an encoder layer on DOTA's accelerator cycle by cycle, and dense attention on the same machine.

    Prints cycles, energy and use against dense, for the out-of-order schedule, in order and row by row, and every
    constant of energy with its source. Sizes of the machine that the paper does not settle are ours.
    """
    from dataclasses import replace

    from gnomon.cli.attention._options import sizes
    from gnomon.core.gantt import chrome_trace
    from gnomon.core.units import parse_bytes
    from gnomon.kernels.detected_attention.accelerator import masks
    from gnomon.kernels.detected_attention.accelerator.design import Design, Layer
    from gnomon.kernels.detected_attention.accelerator.energy import constants
    from gnomon.kernels.detected_attention.accelerator.files import load
    from gnomon.kernels.detected_attention.accelerator.simulate import compare
    from gnomon.report.attention import print_accelerator
    from gnomon.report.files import write_text

    rows_cols = sizes(array, "--array")
    if len(rows_cols) != 2:
        raise click.BadParameter(f"wanted ROWSxCOLS, as 32x16; got {array!r}", param_hint="--array")
    with as_usage():
        mask = load(mask_file) if mask_file is not None else None
        if mask is not None:
            heads, tokens = mask.shape[:2]
        layer = Layer(tokens, width, heads, head_dim or max(1, width // heads), ffn or 4 * width, rank, bits, retention)
        design = Design(
            lanes=lanes, rows=rows_cols[0], cols=rows_cols[1], queries=queries, sram_bytes=parse_bytes(sram),
            sram_bytes_cycle=sram_rate, dram_bytes_cycle=dram_rate, splits=splits,
        )  # fmt: skip
        kept_from = str(mask_file) if mask_file is not None else f"a stand-in, seed {seed}: no trained model's"
        kept = mask if mask is not None else masks.stand_in(layer, seed, is_causal)
        runs = compare(layer, kept, design, is_causal=is_causal)
    if trace is not None:
        bars = [bar._replace(track=f"{run.name}: {bar.track}") for run in (runs[0], runs[-1]) for bar in run.bars]
        write_text(trace, chrome_trace(bars, "DOTA's accelerator and dense"))
        click.echo(f"written: {trace}", err=True)
    if as_json:
        totals = [{"cycles": run.cycles, "energy_j": run.energy_j, "utilization": run.utilization} for run in runs]
        shown = [{**total, "run": replace(run, bars=())} for total, run in zip(totals, runs, strict=True)]
        print_json({"kept_from": kept_from, "runs": shown, "constants": constants()})
        return
    print_accelerator(console(), runs, constants(), kept_from)
