"""`gnomon forecast`: latency on devices that are not here."""

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, store_option, with_task


@click.command()
@with_task()
@click.option("--device", "devices", multiple=True, metavar="NAME",
              help="A device of the catalogue or a file of your own, repeatable. Default: all.")  # fmt: skip
@click.option("--operators", type=click.IntRange(min=0), default=10, show_default=True,
              help="How many operators to list when one device is asked for.")  # fmt: skip
@store_option
@json_option
def command(choice: TaskChoice, devices: tuple[str, ...], operators: int, store_url: str | None, as_json: bool) -> None:
    """Forecast TASK from data sheets: time with a 90 % interval, what bounds it, memory, utilisation."""
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.core.errors import UsageError
    from gnomon.devices import catalogue
    from gnomon.report.terminal import print_forecast_operators, print_forecasts
    from gnomon.store.store import open_store

    chosen = [catalogue.get(name) for name in devices] or catalogue.every()
    task = choice.resolve()
    arguments = {"devices": [device.name for device in chosen]}
    with open_store(store_url).begin("forecast", arguments, task.name, task.digest) as run:
        run.add(task)
        graph = pipeline.capture(task, run)
        forecasts, remarks = pipeline.forecast_everywhere(task, graph, chosen, run)
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
