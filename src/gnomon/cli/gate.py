"""`gnomon gate`: stop a change that makes a task slower."""

from pathlib import Path

import click

from gnomon.cli._common import json_option, parse_dims, print_json, store_option
from gnomon.cli._comparing import Percent, run_or_task


@click.command()
@click.argument("candidate", metavar="TASK|RUN")
@click.option("--baseline", metavar="RUN|FILE", help="What to compare with: a stored run, or a file of --save.")
@click.option("--max-regression", "largest", type=Percent(), default="5%", show_default=True,
              help="The slowdown that is allowed.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Fail as well when a larger slowdown cannot be excluded.")
@click.option("--any-machine", is_flag=True, help="Judge although the baseline is of another machine.")
@click.option("--save", "save_path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Do not judge: write TASK|RUN as a baseline.")  # fmt: skip
@click.option("--sessions", type=click.IntRange(min=2), default=6, show_default=True,
              help="Fresh processes, where a task is measured.")  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), help="Size of the dimension B.")
@click.option("--seqlen", type=click.IntRange(min=1), help="Size of the dimension L (tokens).")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of any named dimension.")
@click.option("--trust", is_flag=True, help="Allow the manifest to import code from its own folder.")
@store_option
@json_option
def command(candidate: str, baseline: str | None, largest: float, strict: bool, any_machine: bool,
            save_path: Path | None, sessions: int, batch: int | None, seqlen: int | None, dims: tuple[str, ...],
            trust: bool, store_url: str | None, as_json: bool) -> None:  # fmt: skip
    """Exit with 1 when TASK (measured now) or RUN is slower than its baseline by more than --max-regression.

    The slowdown must be established: the 90 % interval of the ratio lies beyond what is allowed, which is wrong one
    time in twenty. With --strict it must be excluded instead. A baseline of another machine is not judged: exit code 3.
    """
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.core.errors import UsageError
    from gnomon.report.gate import gate
    from gnomon.report.terminal import print_gate
    from gnomon.spec.task import Task
    from gnomon.store.store import open_store

    if (baseline is None) == (save_path is None):
        raise UsageError("wanted either --baseline to judge by, or --save to write a baseline; see --help")
    store = open_store(store_url)
    past = pipeline.load_baseline(store, baseline) if baseline is not None else None
    side = run_or_task(store, candidate, dims=parse_dims(batch, seqlen, dims), trust=trust)
    name, task_digest = (side.name, side.digest) if isinstance(side, Task) else (side.task, side.task_digest)
    with store.begin("gate", {"baseline": baseline, "largest": largest, "strict": strict}, name, task_digest) as run:
        if isinstance(side, Task):
            run.add(side)
            with Progress(f"measuring {name}") as progress:
                measurement = pipeline.measure(side, run, levels=("model",), sessions=sessions, progress=progress)
        else:
            measurement = pipeline.stored_measurement(store, side.id)
        if past is not None:
            found = gate(baseline or "", past, candidate, measurement, largest=largest, strict=strict,
                         any_machine=any_machine)  # fmt: skip
            run.add(found)
    if save_path is not None:
        pipeline.save_baseline(measurement, save_path)
        if as_json:
            print_json({"baseline": str(save_path), "task": measurement.task})
        else:
            console().print(f"saved {measurement.task} as the baseline {save_path}", markup=False, highlight=False)
        return
    if as_json:
        print_json(found)
    else:
        print_gate(console(), found)
    if not found.passed:
        click.get_current_context().exit(1)
