"""`gnomon trace`: one call as a timeline that Perfetto and Chrome open."""

from pathlib import Path

import click

from gnomon.cli._common import json_option, parse_dims, print_json, store_option, task_options


@click.command()
@task_options
@click.option("--level", type=click.Choice(["layer", "operator", "kernel"]), default="operator", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: TASK-trace.json.")
@click.option("--mode", type=click.Choice(["inference", "training"]), help="Instead of the task's own mode.")
@click.option("--device", default="cpu", show_default=True, help="Where to run: cpu, cuda, cuda:1 ...")
@store_option
@json_option
def command(task: str, level: str, out: Path | None, mode: str | None, device: str, batch: int | None,
            seqlen: int | None, dims: tuple[str, ...], dtype: str | None, trust: bool, store_url: str | None,
            as_json: bool) -> None:  # fmt: skip
    """Trace one call of TASK down to a level and write it in the Chrome trace format (open it in ui.perfetto.dev)."""
    from typing import cast

    from gnomon import pipeline
    from gnomon.cli._progress import Progress
    from gnomon.measure.record import Level
    from gnomon.report.trace import write_trace
    from gnomon.spec.resolve import resolve
    from gnomon.store.store import open_store

    resolved = resolve(task, dims=parse_dims(batch, seqlen, dims), dtype=dtype, mode=mode, device=device, trust=trust)
    path = out or Path(f"{resolved.name}-trace.json")
    levels = ("model", cast(Level, level))
    with (
        open_store(store_url).begin("trace", {"level": level}, task=resolved.name, task_digest=resolved.digest) as run,
        Progress(f"tracing {resolved.name}") as progress,
    ):
        run.add(resolved)
        measurement = pipeline.measure(resolved, run, levels=levels, sessions=1, progress=progress)
    write_trace(measurement, path)
    if as_json:
        print_json({"run": run.id, "trace": str(path), "spans": len(measurement.spans)})
    else:
        click.echo(f"{len(measurement.spans)} spans in {path}; open it in ui.perfetto.dev or chrome://tracing")
