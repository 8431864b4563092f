"""`gnomon resolve`: follow every reference of a task, and pin or compare what it was resolved from."""

from pathlib import Path

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, with_task


@click.command()
@with_task(on_device=True)
@click.option("--search", multiple=True, type=click.Path(path_type=Path), help="A further folder with manifests.")
@click.option("--lock", "lock_file", type=click.Path(path_type=Path), help="Write the digests of all parts to a file.")
@click.option(
    "--check", "check_file", type=click.Path(path_type=Path), help="Compare with a lock; exit 1 if it differs."
)
@click.option("--matrix", is_flag=True, help="List the combinations of a task's matrix and which of them fit.")
@click.option("--explain", is_flag=True, help="Print each decision: which file, which version, which size, why.")
@json_option
def command(
    choice: TaskChoice,
    search: tuple[Path, ...],
    lock_file: Path | None,
    check_file: Path | None,
    matrix: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Resolve TASK into all that a run needs to know: files, versions, sizes, digests. Runs no code of it."""
    from gnomon.core.errors import CheckFailed
    from gnomon.spec import resolve
    from gnomon.spec.lock import check_lock, read_lock, write_lock

    if matrix:
        _list_matrix(choice, search, as_json)
        return
    locked = read_lock(check_file) if check_file is not None else None
    resolution = resolve.explain(
        choice.name, dims=choice.dims, dtype=choice.dtype, mode=choice.mode, device=choice.device, trust=choice.trust,
        search=search,
    )  # fmt: skip
    task = resolution.task
    if lock_file is not None:
        write_lock(task, lock_file)
    if as_json:
        print_json({"task": task, "decisions": resolution.decisions} if explain else task)
    elif explain:
        for decision in resolution.decisions:
            click.echo(decision)
    else:
        sizes = " ".join(f"{name}={size}" for name, size in task.dims.items())
        click.echo(
            f"{task.name}@{task.version} {task.mode} {task.dtype} {sizes} on {task.device}, {task.threads} thread(s)"
        )
        for part, digest in task.lock.items():
            click.echo(f"  {part:24} {digest}")
        click.echo(f"  {'whole, with these sizes':24} {task.digest}")
    if locked is not None and (differences := check_lock(task, locked)):
        raise CheckFailed(f"{task.name} is not what {check_file} pins:\n" + "\n".join(differences))


def _list_matrix(choice: TaskChoice, search: tuple[Path, ...], as_json: bool) -> None:
    from gnomon.spec.matrix import expand

    found = expand(
        choice.name, trust=choice.trust, search=search, dims=choice.dims, dtype=choice.dtype, mode=choice.mode,
        device=choice.device,
    )  # fmt: skip
    if as_json:
        print_json(found)
        return
    for one in found:
        words = " ".join(f"{key}={value}" for key, value in one.choices.items())
        state = "fits" if one.task is not None else ("not here: " if one.fits else "does not fit: ") + str(one.why_not)
        click.echo(f"{one.target}  {words}  {state}")
