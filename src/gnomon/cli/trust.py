"""`gnomon trust`: agree to the code inside a manifest."""

from pathlib import Path

import click

from gnomon.cli._common import json_option, print_json


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.option("--remove", is_flag=True, help="Take FILE off the list.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(file: Path | None, remove: bool, yes: bool, as_json: bool) -> None:
    """Allow the inline code of the manifest FILE to run; without FILE, show what is allowed.

    The code is shown first. Agreement holds for the manifest's digest: it ends with the first change.
    """
    from gnomon.spec import trust
    from gnomon.spec.load import load

    if file is not None:
        manifest = load(file).manifest()
        what = f"{manifest.kind} {manifest.identity}"
        if remove:
            trust.remove(manifest.digest)
            click.echo(f"no longer trusted: {what}", err=True)
        else:
            for name, code in _code(manifest.spec):
                click.echo(f"--- {name} of {what}\n{code.rstrip()}", err=True)
            if not yes:
                click.confirm(f"Run this code whenever {file} is used, as it is now?", abort=True, err=True)
            trust.add(manifest.digest, what)
    entries = trust.trusted()
    if as_json:
        print_json(entries)
    else:
        for digest, what in entries.items():
            click.echo(f"{digest} {what}")


def _code(spec: object) -> list[tuple[str, str]]:
    """Inline code of a model, or of a task with its model inside. Raises UsageError when there is none."""
    from gnomon.core.errors import UsageError

    matrix = getattr(spec, "matrix", None)
    models = [getattr(spec, "model", spec), *(matrix.model if matrix is not None else ())]
    found = [
        (name, getattr(getattr(model, "stages", None), name, None))
        for model in models
        for name in ("preprocess", "postprocess")
    ]
    code = [(name, stage.code) for name, stage in found if stage is not None and stage.code is not None]
    if not code:
        raise UsageError("this manifest holds no inline code, so there is nothing to agree to")
    return code
