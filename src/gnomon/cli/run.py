"""`gnomon run`: measure a task on this machine."""

import click

from gnomon.cli._common import json_option, parse_dims, print_json, store_option, task_options


@click.command()
@task_options
@click.option("--level", "levels", multiple=True, type=click.Choice(["model", "layer", "operator", "kernel"]),
              help="How deep to look, each level in a run of its own; 'model' is always measured.")  # fmt: skip
@click.option("--sessions", type=click.IntRange(min=1), help="Fresh processes, the unit of replication.")
@click.option("--mode", type=click.Choice(["inference", "training"]), help="Instead of the task's own mode.")
@click.option("--device", default="cpu", show_default=True, help="Where to run: cpu, cuda, cuda:1 ...")
@store_option
@json_option
def command(task: str, levels: tuple[str, ...], sessions: int | None, mode: str | None, device: str,
            batch: int | None, seqlen: int | None, dims: tuple[str, ...], dtype: str | None, trust: bool,
            store_url: str | None, as_json: bool) -> None:  # fmt: skip
    """Measure TASK on this machine: latency with intervals, and by layer and operator when asked."""
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.measure.record import LEVELS
    from gnomon.report.terminal import print_measurement
    from gnomon.spec.resolve import resolve
    from gnomon.store.store import open_store

    resolved = resolve(task, dims=parse_dims(batch, seqlen, dims), dtype=dtype, mode=mode, device=device, trust=trust)
    wanted = tuple(level for level in LEVELS if level == "model" or level in levels)
    arguments = {"levels": list(wanted), "sessions": sessions}
    with (
        open_store(store_url).begin("run", arguments, task=resolved.name, task_digest=resolved.digest) as run,
        Progress(f"measuring {resolved.name}") as progress,
    ):
        run.add(resolved)
        measurement = pipeline.measure(resolved, run, levels=wanted, sessions=sessions, progress=progress)
    if as_json:
        print_json(measurement)
    else:
        print_measurement(console(), measurement)
        console().print(f"stored as run {run.id}")
