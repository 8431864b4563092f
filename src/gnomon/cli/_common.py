"""What the verbs share: the `--json` option, options of a task, and where people's text goes."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
store_option = click.option(
    "--store", "store_url", metavar="URL", envvar="GNOMON_STORE", help="Where results are kept (a path or a URL)."
)


def print_json(value: Any) -> None:
    """One JSON document on standard output; records are converted."""
    from gnomon.core.records import to_json

    click.echo(json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False))


def console() -> "Console":
    """A rich console on standard output for tables."""
    from rich.console import Console

    return Console()


def progress_console() -> "Console":
    """A rich console on standard error, for progress and remarks."""
    from rich.console import Console

    return Console(stderr=True)


def task_options(command: F) -> F:
    """`TASK` and the options that change a task's sizes: --batch, --seqlen, --dim NAME=SIZE, --dtype, --trust."""
    options = [
        click.argument("task"),
        click.option("--batch", type=click.IntRange(min=1), help="Size of the dimension B."),
        click.option("--seqlen", type=click.IntRange(min=1), help="Size of the dimension L (tokens)."),
        click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of any named dimension."),
        click.option("--dtype", help="Run the model in this dtype, e.g. bfloat16."),
        click.option("--trust", is_flag=True, help="Allow the manifest to import code from its own folder."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def parse_dims(batch: int | None, seqlen: int | None, dims: tuple[str, ...]) -> dict[str, int]:
    """The sizes asked for on the command line. Raises click.BadParameter for anything but NAME=SIZE."""
    sizes = {name: size for name, size in (("B", batch), ("L", seqlen)) if size is not None}
    for text in dims:
        name, _, size = text.partition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise click.BadParameter(f"wanted NAME=SIZE with a positive whole number, got {text!r}", param_hint="--dim")
        sizes[name] = int(size)
    return sizes
