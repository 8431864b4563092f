"""`gnomon examine`: the main job."""

from pathlib import Path
from typing import Any

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, store_option, with_task


@click.command()
@with_task()
@click.option("--out", type=click.Path(path_type=Path), default=Path("gnomon-report"), show_default=True,
              help="Folder for report.html, trace.json and task.lock.")  # fmt: skip
@click.option("--recipe", "recipes", multiple=True, metavar="NAME", help="Try only these recipes.")
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Forecast only these devices.")
@click.option("--quick", is_flag=True, help="One session each and no comparison: wide intervals, no verdicts.")
@store_option
@json_option
def command(
    choice: TaskChoice,
    out: Path,
    recipes: tuple[str, ...],
    devices: tuple[str, ...],
    quick: bool,
    store_url: str | None,
    as_json: bool,
) -> None:
    """Measure TASK here, forecast it elsewhere, sharpen it, and write one report.

    TASK is the name of a task (see `gnomon tasks`), a manifest, a configuration file of transformers, or a
    'package.module:callable' that returns a module.
    """
    import shlex
    import sys

    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.report.terminal import print_examination
    from gnomon.store.store import open_store

    plan = pipeline.Plan(
        levels=("model", "layer", "operator"),
        recipes=recipes or (() if quick else None),
        sessions=1 if quick else None,
        devices=devices or None,
    )
    task = choice.resolve()
    again = shlex.join(["gnomon", *sys.argv[1:]])
    with Progress(f"examining {task.name}") as progress:
        store = open_store(store_url)
        result = pipeline.examine(task, store, plan=plan, out=out, command=again, progress=progress)
    if as_json:
        print_json(_summary(result, out))
    else:
        print_examination(console(), result, path=out / "report.html")


def _summary(result: Any, out: Path) -> dict[str, Any]:
    """What a script wants to know; the whole records are in the store under the run."""
    return {
        "run": result.run_id,
        "task": result.task.name,
        "digest": result.task.digest,
        "dims": result.task.dims,
        "report": str(out / "report.html"),
        "environment": result.measurement.environment,
        "latency": result.measurement.latency,
        "forecasts": {f.device: f.total for f in result.ranked_forecasts()},
        "changes": [
            {
                "recipe": c.recipe,
                "verdict": c.verdict,
                "reason": c.reason,
                "speedup": c.speedup,
                "against": c.against,
                "quality_before": c.quality_before,
                "quality_after": c.quality_after,
                "distance": c.distance,
            }
            for c in result.changes
        ],
    }
