"""`gnomon verify`: run what a lock or a reference log describes again, and say whether it is the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gnomon.cli._common import json_option, print_json, store_option

if TYPE_CHECKING:
    from gnomon.measure.reproduction import Reproduction
    from gnomon.spec.lock import Lock
    from gnomon.spec.task import Task


@click.command()
@click.argument("target")
@click.option("--record", type=click.Path(path_type=Path), help="Run TARGET and write what came as a reference log.")
@click.option("--against", type=click.Path(path_type=Path), help="Run TARGET and compare with this reference log.")
@click.option("--author", default="", help="Who vouches for the log that --record writes.")
@click.option("--sessions", type=click.IntRange(min=1), help="Fresh processes that are timed.")
@click.option("--device", help="Where to run instead of where it ran: cpu, cuda, cuda:1 ...")
@click.option("--search", multiple=True, type=click.Path(path_type=Path), help="A further folder with manifests.")
@click.option("--trust", is_flag=True, help="Allow code beside the manifest to run.")
@store_option
@json_option
def command(
    target: str,
    record: Path | None,
    against: Path | None,
    author: str,
    sessions: int | None,
    device: str | None,
    search: tuple[Path, ...],
    trust: bool,
    store_url: str | None,
    as_json: bool,
) -> None:
    """Reproduce TARGET: a lock, or a task together with --against or --record.

    A lock is resolved and run again: every part must have its locked digest, and the outputs must be those that are
    locked; a lock without outputs is run twice. A reference log also holds outputs with tolerances, quality and times.
    Exit code 1 when it was not reproduced.
    """
    from gnomon import pipeline
    from gnomon.cli._progress import Progress
    from gnomon.core.errors import CheckFailed, UsageError
    from gnomon.store.store import open_store

    if record is not None and against is not None:
        raise UsageError("--record writes a log and --against reads one; give one of them")
    lock, task = _resolved(target, against, device, search, trust)
    if lock is None and record is None:
        raise UsageError(
            f"{target} is no lock: verify a task with --against LOG, write a log with --record LOG, or make a lock "
            f"with gnomon resolve {target} --lock FILE"
        )
    arguments = {"target": target, "record": str(record or ""), "against": str(against or "")}
    with (
        open_store(store_url).begin("verify", arguments, task.name, task.digest) as run,
        Progress(f"verifying {task.name}") as progress,
    ):
        run.add(task)
        if record is not None:
            log = pipeline.record_log(task, record, run, author=author, sessions=sessions, progress=progress)
        elif against is not None:
            result = pipeline.verify_log(task, against, run, sessions=sessions, progress=progress)
        else:
            assert lock is not None  # else it would have been refused above
            result = pipeline.verify_lock(task, lock, run, against=target, progress=progress)
    if record is not None:
        _show_log(log, record, as_json)
        return
    if as_json:
        print_json(result)
    else:
        _show(result)
    if result.verdict != "reproduced":
        what = ", ".join(dict.fromkeys(part.aspect for part in result.failed))
        raise CheckFailed(f"{task.name} was not reproduced: {what}")


def _resolved(
    target: str, against: Path | None, device: str | None, search: tuple[Path, ...], trust: bool
) -> "tuple[Lock | None, Task]":
    """The lock that says what is wanted, if there is one, and the task as it is now."""
    from dataclasses import replace

    from gnomon import pipeline
    from gnomon.spec.lock import is_lock, read_lock
    from gnomon.spec.resolve import resolve, resolve_lock

    path = Path(target)
    if is_lock(path):
        lock = read_lock(path)
    elif against is not None:
        lock = replace(pipeline.log_lock(against), target=str(path.resolve()) if path.exists() else target)
    else:
        return None, resolve(target, device=device or "cpu", search=search, trust=trust)
    lock = replace(lock, device=device or lock.device, search=(*lock.search, *(str(p.resolve()) for p in search)))
    return lock, resolve_lock(lock, trust=trust)


def _show(result: "Reproduction") -> None:
    from rich.table import Table

    from gnomon.cli._common import console

    table = Table("Aspect", "What", "Verdict", "Why", box=None, pad_edge=False)
    for part in result.parts:
        table.add_row(part.aspect, part.name, part.verdict, part.detail)
    console().print(table)
    console().print(f"{result.task}: {result.verdict}", highlight=False)


def _show_log(log: Any, path: Path, as_json: bool) -> None:
    if as_json:
        print_json(log)
        return
    for name, metric in log.spec.metrics.items():
        ends = f" ({metric.ci95[0]:.4g} to {metric.ci95[1]:.4g})" if metric.ci95 else ""
        click.echo(f"{name:18} {metric.value:.4g}{ends} {metric.unit}, {metric.n} session(s)")
    for one in log.spec.outputs:
        click.echo(f"{one.name:18} {one.dtype} {list(one.shape)} {one.file or one.digest[:19]}")
    click.echo(f"written: {path}")
