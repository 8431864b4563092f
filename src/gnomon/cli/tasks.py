"""`gnomon tasks`: what can be examined here."""

from pathlib import Path

import click

from gnomon.cli._common import console, json_option, print_json


@click.command()
@click.option("--search", multiple=True, type=click.Path(path_type=Path), help="A further folder with manifests.")
@json_option
def command(search: tuple[Path, ...], as_json: bool) -> None:
    """List the tasks that are shipped or found, and whether each can run on this machine."""
    from gnomon.spec.listing import listing

    entries = listing(search)
    if as_json:
        print_json(entries)
        return
    from rich.table import Table

    table = Table("Task", "Mode", "Sizes", "Runs here", "What it does", box=None, pad_edge=False)
    for entry in entries:
        sizes = " ".join(f"{name}={size}" for name, size in entry.dims.items())
        table.add_row(f"{entry.name}@{entry.version}", entry.mode, sizes, entry.why_not or "yes", entry.description)
    console().print(table)
