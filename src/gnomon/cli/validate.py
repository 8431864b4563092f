"""`gnomon validate`: is a manifest well formed? Nothing it names is looked up or run."""

from pathlib import Path

import click

from gnomon.cli._common import json_option, print_json


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--schema", "kind", metavar="KIND", help="Print the JSON Schema of a kind: Task, Model, Dataset ...")
@json_option
def command(files: tuple[Path, ...], kind: str | None, as_json: bool) -> None:
    """Check manifests without following references, looking for packages or running anything."""
    from gnomon.core.errors import ManifestError
    from gnomon.spec.load import load, show
    from gnomon.spec.schema import schema

    if kind is not None:
        print_json(schema(kind))
        return
    if not files:
        raise click.UsageError("name one or more manifests, or --schema KIND")
    results, problems = [], []
    for file in files:
        try:
            manifest = load(file).manifest()
        except ManifestError as error:
            problems += str(error).splitlines()
            results.append({"file": str(file), "valid": False, "problems": str(error).splitlines()})
        else:
            results.append({"file": str(file), "valid": True, "kind": manifest.kind, "name": manifest.metadata.name,
                            "version": manifest.metadata.version, "digest": manifest.digest})  # fmt: skip
            if not as_json:
                click.echo(f"{file}: {manifest.kind} {manifest.identity} {manifest.digest[:19]}")
    if as_json:
        print_json(results)
    if problems:
        raise ManifestError(show(problems))
