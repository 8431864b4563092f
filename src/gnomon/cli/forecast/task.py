"""`gnomon forecast TASK`: one step of a task on devices that are not here."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, progress_console, store_option, with_task

if TYPE_CHECKING:
    from gnomon.devices.device import Device
    from gnomon.spec.task import Task
    from gnomon.store.store import Run

at_least_one = click.IntRange(min=1)


@click.command()
@with_task()
@click.option("--device", "devices", multiple=True, metavar="NAME",
              help="A device of the catalogue, a file of your own, or 'cpu' for this machine as measured; repeatable. "
                   "Default: the whole catalogue.")  # fmt: skip
@click.option("--compile", "compiled", is_flag=True, help="Fuse operators as TorchInductor would.")
@click.option("--cuda-graph", is_flag=True, help="Launch the step as one CUDA graph.")
@click.option("--tensor-parallel", "tensor", type=at_least_one, default=1, metavar="N", help="Devices a layer is cut "
              "over.")  # fmt: skip
@click.option("--pipeline-parallel", "pipeline", type=at_least_one, default=1, metavar="N", help="Stages the layers "
              "are dealt to.")  # fmt: skip
@click.option("--data-parallel", "data", type=at_least_one, default=1, metavar="N", help="Copies of the model, each "
              "with a batch of --batch.")  # fmt: skip
@click.option("--micro-batches", type=at_least_one, default=1, metavar="N", help="Parts of the batch in a pipeline.")
@click.option("--schedule", type=click.Choice(["gpipe", "1f1b"]), default="1f1b", help="Order of a pipeline's work.")
@click.option("--zero", type=click.IntRange(0, 3), default=0, help="ZeRO stage of data parallelism.")
@click.option("--sparsity", type=float, metavar="SHARE", help="What if this share of linear layers' weights were 0?")
@click.option("--bits", type=int, metavar="N", help="What if linear layers' weights had N bits?")
@click.option("--predictor", metavar="NAME|DIR",
              help="Another predictor than ours, or the folder that `forecast fit --out` wrote.")  # fmt: skip
@click.option("--calibration/--no-calibration", "use_calibration", default=True, show_default=True,
              help="Use what `gnomon calibrate` measured on the device.")  # fmt: skip
@click.option("--operators", type=click.IntRange(min=0), default=10, show_default=True,
              help="How many operators to list when one device is asked for.")  # fmt: skip
@store_option
@json_option
def command(
    choice: TaskChoice,
    devices: tuple[str, ...],
    operators: int,
    use_calibration: bool,
    store_url: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Forecast one step of TASK: time with a 90 % interval, what bounds it, memory, utilisation, energy.

    TASK is a manifest, a task's name, a configuration of Transformers (config.json) or package.module:callable.
    --dtype also takes tf32 (products of a float32 model), float8 and int8 (linear layers; the rest stays in 16 bits).
    """
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.core.errors import UsageError
    from gnomon.devices.breakeven import Kind
    from gnomon.forecast.dtypes import captured_in
    from gnomon.forecast.setting import Setting
    from gnomon.report.terminal import print_forecast_operators, print_forecasts
    from gnomon.store.store import open_store

    setting = Setting(dtype=choice.dtype, **how)
    task = replace(choice, dtype=captured_in(choice.dtype)).resolve()
    arguments = {"devices": list(devices), "dtype": choice.dtype, **how}
    store = open_store(store_url)
    with store.begin("forecast", arguments, task.name, task.digest) as run:
        run.add(task)
        chosen = choose(devices, task, run)
        graph = pipeline.capture(task, run)
        found = {d.name: pipeline.stored_calibration(store, d) for d in chosen} if use_calibration else {}
        calibrations = {name: one for name, one in found.items() if one is not None}
        kind: Kind = "sparsity" if setting.sparsity is not None else "bits"
        tables = pipeline.stored_break_even(store, kind) if setting.changes_weights else {}
        forecasts, remarks = pipeline.forecast_everywhere(task, graph, chosen, run, setting, calibrations, tables)
        if not forecasts:
            raise UsageError("\n".join(dict.fromkeys(remarks)))
    for remark in remarks:
        click.echo(remark, err=True)
    if as_json:
        print_json({"run": run.id, "forecasts": forecasts})
        return
    print_forecasts(console(), forecasts)
    if len(forecasts) == 1 and operators:
        print_forecast_operators(console(), forecasts[0], operators)


def choose(names: tuple[str, ...], task: "Task", run: "Run") -> "list[Device]":
    """The devices that are named, 'cpu' being this machine; all of the catalogue when none is."""
    from gnomon import pipeline
    from gnomon.devices import catalogue

    def say(message: str) -> None:
        progress_console().print(message, style="dim", markup=False)

    def device(name: str) -> "Device":
        return pipeline.this_machine(task.threads, run, say) if name == "cpu" else catalogue.get(name)

    return [device(name) for name in dict.fromkeys(names)] or catalogue.every()
