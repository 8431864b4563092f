"""`gnomon forecast sweep`: which device to take for a task, at which batch and in which dtype."""

from dataclasses import replace
from pathlib import Path

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, store_option, with_task
from gnomon.cli.forecast.task import choose


@click.command()
@with_task()
@click.option("--batches", default="1..64", show_default=True, metavar="SIZES", help="1,2,4 or 1..64 (doubling).")
@click.option("--seqlens", metavar="SIZES", help="Lengths in tokens. Default: the task's own.")
@click.option("--dtypes", metavar="NAMES", help="As bfloat16,float8. Default: the task's own.")
@click.option("--device", "devices", multiple=True, metavar="NAME",
              help="A device, a file of your own, or 'cpu'; repeatable. Default: the whole catalogue.")  # fmt: skip
@click.option("--compile", "compiled", is_flag=True, help="Fuse operators as TorchInductor would.")
@click.option("--cuda-graph", is_flag=True, help="Launch each step as one CUDA graph.")
@click.option(
    "--prices", type=click.Path(path_type=Path), metavar="FILE", help="YAML: currency, and per_hour by device."
)
@click.option("--best", type=click.Choice(["latency", "throughput", "cost"]),
              help="What the answer is about. Default: cost when there are prices, else throughput.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it, .svg or .png.")
@store_option
@json_option
def command(
    choice: TaskChoice,
    batches: str,
    seqlens: str | None,
    dtypes: str | None,
    devices: tuple[str, ...],
    compiled: bool,
    cuda_graph: bool,
    prices: Path | None,
    best: str | None,
    plot: Path | None,
    store_url: str | None,
    as_json: bool,
) -> None:
    """Forecast TASK over batches, dtypes and devices, and say which device to take.

    Devices whose intervals overlap that of the best are said not to be told apart from it.
    """
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.core.errors import UsageError
    from gnomon.forecast import rental
    from gnomon.forecast.dtypes import cast
    from gnomon.forecast.setting import Setting
    from gnomon.forecast.sweep import Objective, Sizes, answer, sizes_in
    from gnomon.report.sweep import draw, print_sweep, sentences
    from gnomon.store.store import open_store

    if "B" in choice.dims or (seqlens and "L" in choice.dims):
        raise UsageError("a sweep takes its sizes from --batches and --seqlens, not from --batch, --seqlen or --dim")
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise UsageError(f"--plot: wanted a file called .svg or .png, got {str(plot)!r}")
    named = [name.strip() for name in (dtypes or choice.dtype or "").split(",") if name.strip()]
    for name in named:
        cast(name)  # an unknown one is told before anything is captured
    chosen_prices = rental.load(prices) if prices is not None else None
    objective: Objective = best or ("cost" if prices is not None else "throughput")  # type: ignore[assignment]
    sizes, lengths = sizes_in(batches), sizes_in(seqlens) if seqlens else ()

    def resolve(at: Sizes):  # type: ignore[no-untyped-def]
        length = {} if at.seqlen is None else {"L": at.seqlen}
        return replace(choice, dims={**choice.dims, "B": at.batch, **length}, dtype=at.dtype).resolve()

    task = resolve(Sizes(sizes[0], lengths[0] if lengths else None, None))
    if lengths and "L" not in task.dims:
        raise UsageError(f"task {task.name} has no length L; its dims are {', '.join(task.dims)}")
    arguments = {"batches": batches, "seqlens": seqlens, "dtypes": named, "devices": list(devices)}
    with open_store(store_url).begin("forecast sweep", arguments, task.name, task.digest) as run:
        run.add(task)
        result = pipeline.sweep_task(
            resolve,
            choose(devices, task, run),
            run,
            batches=sizes,
            seqlens=lengths,
            dtypes=named,
            length=task.dims.get("L"),
            setting=Setting(compiled=compiled, cuda_graph=cuda_graph),
            prices=chosen_prices,
        )
        found = answer(result.points, objective)
    if plot is not None:
        draw(result, plot)
    if as_json:
        print_json({"run": run.id, "sweep": result, "best": found.best, "rivals": found.rivals,
                    "answer": " ".join(sentences(result, found))})  # fmt: skip
        return
    print_sweep(console(), result, found)
    if plot is not None:
        click.echo(f"drawn: {plot}", err=True)
