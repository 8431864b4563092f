"""`gnomon calibrate`: measure kernels here, so that forecasts for this machine are right."""

from typing import TYPE_CHECKING

import click

from gnomon.cli._common import console, json_option, print_json, store_option

if TYPE_CHECKING:
    from gnomon.forecast.calibration import Calibration


@click.command()
@click.option("--device", default="cpu", show_default=True, help="What to calibrate: cpu, cuda, cuda:1 ...")
@click.option("--budget", default="2m", show_default=True, metavar="TIME", help="Time for measuring, at least 10s.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the CPU (1 unless given).")
@store_option
@json_option
def command(device: str, budget: str, threads: int | None, store_url: str | None, as_json: bool) -> None:
    """Measure well-chosen kernels on this machine and store by how much forecasts for it are wrong.

    `gnomon forecast` then corrects what it says about this machine. One thread of a CPU is timed by its CPU time.
    """
    from gnomon import pipeline
    from gnomon.cli._progress import Progress
    from gnomon.core.units import parse_seconds
    from gnomon.store.store import open_store

    try:
        budget_s = parse_seconds(budget)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--budget") from error
    if threads is not None and device != "cpu":
        raise click.UsageError(f"--threads belongs to --device cpu; got --device {device}")
    arguments = {"device": device, "budget_s": budget_s, "threads": threads}
    with (
        open_store(store_url).begin("calibrate", arguments) as run,
        Progress(f"calibrating {device}") as progress,
    ):
        calibration = pipeline.calibrate(device, budget_s, run, threads=threads or 1, progress=progress)
    for warning in calibration.warnings:
        click.echo(warning, err=True)
    if as_json:
        print_json(calibration)
        return
    _show(calibration)
    console().print(f"stored as run {run.id}")


def _show(calibration: "Calibration") -> None:
    from rich import box
    from rich.table import Table

    from gnomon.core.units import format_seconds

    out, host = console(), calibration.host
    out.print(
        f"{calibration.device.name}: {len(calibration.samples)} kernels in {format_seconds(calibration.elapsed_s)}"
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), caption="measured over predicted time, with its 90 % interval")
    table.add_column("class of operators")
    for heading in ("factor", "from", "to", "kernels"):
        table.add_column(heading, justify="right")
    for one in calibration.factors:
        table.add_row(one.category, f"{one.value:.2f}", f"{one.low:.2f}", f"{one.high:.2f}", str(one.n))
    out.print(table)
    out.print(
        f"dispatch of an operator {format_seconds(host.inference_s)} in inference, in training "
        f"{format_seconds(host.forward_s)} forward, {format_seconds(host.backward_s)} backward, "
        f"{format_seconds(host.optimizer_s)} in the optimizer; of a view {format_seconds(host.view_s)}; "
        f"a fresh page {format_seconds(host.page_s)}"
    )
