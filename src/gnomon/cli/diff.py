"""`gnomon diff`: which aspects of two tasks differ."""

from pathlib import Path

import click

from gnomon.cli._common import console, json_option, print_json


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--search", multiple=True, type=click.Path(path_type=Path), help="A further folder with manifests.")
@click.option("--trust", is_flag=True, help="Allow code inside the manifests; none is run.")
@json_option
def command(first: str, second: str, search: tuple[Path, ...], trust: bool, as_json: bool) -> None:
    """Compare what the tasks FIRST and SECOND say, aspect by aspect and key by key. Runs nothing.

    A comparison of their results is controlled when exactly one aspect differs, else confounded.
    """
    from gnomon.spec.difference import difference

    found = difference(first, second, trust=trust, search=search)
    if as_json:
        print_json(found)
        return
    if found.differences:
        from rich.table import Table

        table = Table("Aspect", "Key", "First", "Second", box=None, pad_edge=False)
        for aspect, keys in found.differences.items():
            for key, (a, b) in keys.items():
                table.add_row(aspect, key, *("-" if value is None else str(value) for value in (a, b)))
        console().print(table)
    click.echo(found.verdict)
