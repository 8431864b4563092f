"""`gnomon forecast`: latency on devices that are not here."""

import click

from gnomon.cli._common import json_option, parse_dims, print_json, store_option, task_options


@click.command()
@task_options
@click.option("--device", "devices", multiple=True, metavar="NAME",
              help="A device of the catalogue or a file of your own, repeatable; without it, the whole catalogue.")  # fmt: skip
@click.option("--mode", type=click.Choice(["inference", "training"]), help="Instead of the task's own mode.")
@click.option("--operators", type=click.IntRange(min=0), default=10, show_default=True,
              help="How many operators to list when one device is asked for.")  # fmt: skip
@store_option
@json_option
def command(task: str, devices: tuple[str, ...], mode: str | None, operators: int, batch: int | None,
            seqlen: int | None, dims: tuple[str, ...], dtype: str | None, trust: bool, store_url: str | None,
            as_json: bool) -> None:  # fmt: skip
    """Forecast TASK on devices from their data sheets: time with a 90 % interval, what bounds it, memory, utilisation."""
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.core.errors import UsageError
    from gnomon.devices import catalogue
    from gnomon.report.terminal import print_forecast_operators, print_forecasts
    from gnomon.spec.resolve import resolve
    from gnomon.store.store import open_store

    chosen = [catalogue.get(name) for name in devices] or catalogue.every()
    resolved = resolve(task, dims=parse_dims(batch, seqlen, dims), dtype=dtype, mode=mode, trust=trust)
    arguments = {"devices": [device.name for device in chosen]}
    with open_store(store_url).begin("forecast", arguments, resolved.name, resolved.digest) as run:
        run.add(resolved)
        graph = pipeline.capture(resolved, run)
        forecasts, remarks = pipeline.forecast_everywhere(resolved, graph, chosen, run)
    for remark in remarks:
        click.echo(remark, err=True)
    if not forecasts:
        raise UsageError("none of the devices has the precision that the task needs; see above")
    if as_json:
        print_json({"run": run.id, "forecasts": forecasts})
        return
    print_forecasts(console(), forecasts)
    if len(forecasts) == 1 and operators:
        print_forecast_operators(console(), forecasts[0], operators)
