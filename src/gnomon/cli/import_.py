"""`gnomon import`: manifests and traces of other tools become ours. Nothing is run or fetched.

Of a manifest every key is reported; of a trace see `import_trace`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gnomon.cli._common import console, json_option, print_json
from gnomon.cli.import_trace import trace

if TYPE_CHECKING:
    from gnomon.spec.imports.report import Failed, Imported


@click.group()
def command() -> None:
    """Turn manifests and traces of other tools into Gnomon's."""


command.add_command(trace)


@command.command("mlmodelscope")
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE|FOLDER")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write the manifests into this folder.")
@click.option(
    "--assets",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder with graph files you fetched: their MD5 is checked, they are pinned by SHA-256 and copied.",
)
@click.option("--force", is_flag=True, help="Write over manifests that are in --out already.")
@click.option("--all", "whole", is_flag=True, help="List also the keys that were mapped or kept.")
@json_option
def mlmodelscope(path: Path, out: Path | None, assets: Path | None, force: bool, whole: bool, as_json: bool) -> None:
    """Import model manifests of ML ModelScope's Go agents: one YAML file, or all in a folder and below it.

    Each becomes a Model, a Task and, where its framework is a Python package, a Software manifest. Every key is
    reported: mapped, kept as provenance in labels, unmapped, refused, or mended. Inline code is never run; of it only
    the digest is kept. Exit code 1 when some of a folder's manifests failed, 2 when the one named did.
    """
    from gnomon.core.errors import CheckFailed, ManifestError
    from gnomon.spec.imports.folder import import_path, write_all
    from gnomon.spec.imports.report import Failed

    results = import_path(path, assets)
    files: list[Path] = []
    if out is not None:
        results, files = write_all(results, path, out, force=force)
    if as_json:
        print_json({"results": results, "written": [str(file) for file in files]})
    else:
        _print(results, whole)
        if out is not None and len(results) > 1:
            click.echo(f"wrote {len(files)} manifests below {out}")
        elif out is not None:
            click.echo("".join(f"wrote {file}\n" for file in files), nl=False)
    failed = [result for result in results if isinstance(result, Failed)]
    if failed and not path.is_dir():
        raise ManifestError(failed[0].error)
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(results)} manifests could not be imported")


def _print(results: Sequence["Imported | Failed"], whole: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gnomon.spec.imports.report import Failed

    out = console()
    if len(results) == 1 and not isinstance(results[0], Failed):
        _print_keys(results[0], whole)
        return
    table = Table("manifest", "mapped", "kept", "unmapped", "refused", "mended", "runs here")
    for result in results:
        if isinstance(result, Failed):
            table.add_row(escape(result.source), "-", "-", "-", "-", "-", "failed")
        else:
            counts = [str(result.count(kind)) for kind in ("mapped", "kept", "unmapped", "refused", "mended")]
            table.add_row(escape(result.source), *counts, "no" if result.why_not_runnable else "yes")
    if len(results) > 1:
        out.print(table)
    for result in results:
        if isinstance(result, Failed) and len(results) > 1:
            click.echo(_printable(result.error), err=True)


def _print_keys(result: "Imported", whole: bool) -> None:
    for remark in result.remarks:
        if whole or remark.outcome in ("unmapped", "refused", "mended"):
            to = f" -> {remark.to}" if remark.to else ""
            note = f": {remark.note}" if remark.note else ""
            click.echo(
                _printable(f"{result.source}:{remark.line}: {remark.key or '(file)'}: {remark.outcome}{to}{note}")
            )
    counts = [f"{result.count(kind)} {kind}" for kind in ("mapped", "kept", "unmapped", "refused", "mended")]
    click.echo(f"{result.name}: {', '.join(counts)}{'' if whole else ' (--all lists every key)'}")
    if not result.lossless:
        click.echo("inline code is left out; all else can be given back")
    click.echo(f"cannot be run: {_printable(result.why_not_runnable)}" if result.why_not_runnable else "it can be run")


def _printable(text: str) -> str:
    """Without characters that steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
