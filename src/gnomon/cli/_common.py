"""What the verbs share: the `--json` option, options of a task, and where people's text goes."""

import contextlib
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from gnomon.core.errors import GnomonError
    from gnomon.spec.task import Task

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


@dataclass(frozen=True, slots=True)
class TaskChoice:
    """The task that the command line names, with what it changes about it.

    keeps_runs: the command stores what it does, so a task that cannot be resolved is stored as a failed run.
    """

    name: str
    dims: dict[str, int]
    dtype: str | None
    mode: str | None
    device: str
    trust: bool
    keeps_runs: bool = False
    store_url: str | None = None

    def resolve(self) -> "Task":
        """Follow the manifest's references. Raises ManifestError with every problem found."""
        from gnomon.core.errors import GnomonError
        from gnomon.spec.resolve import resolve

        try:
            return resolve(
                self.name, dims=self.dims, dtype=self.dtype, mode=self.mode, device=self.device, trust=self.trust
            )
        except GnomonError as error:
            if self.keeps_runs:
                self._store_failure(error)
            raise

    def _store_failure(self, error: "GnomonError") -> None:
        from gnomon.core.errors import GnomonError
        from gnomon.store.store import open_store

        command = click.get_current_context().command_path.partition(" ")[2].removesuffix(" TASK")
        with contextlib.suppress(GnomonError):  # a store that cannot be written must not hide why the task is refused
            run = open_store(self.store_url).begin(command, {"target": self.name, "dims": self.dims}, task=self.name)
            run.end("failed", str(error), error.outcome)


def with_task(*, on_device: bool = False) -> Callable[[F], F]:
    """Give a command `TASK` and the options that change it, handed over as one TaskChoice named `choice`.

    on_device: also offer --device, the device of this machine to run on.
    """
    options = [
        click.argument("task"),
        click.option("--batch", type=click.IntRange(min=1), help="Size of the dimension B."),
        click.option("--seqlen", type=click.IntRange(min=1), help="Size of the dimension L (tokens)."),
        click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of any named dimension."),
        click.option("--dtype", help="Run the model in this dtype, e.g. bfloat16."),
        click.option(
            "--mode",
            type=click.Choice(["inference", "training", "train"]),
            help="Instead of the task's own mode; train is training.",
        ),
        click.option("--trust", is_flag=True, help="Allow the manifest to import code from its own folder."),
    ]
    where = click.option("--device", default="cpu", show_default=True, help="Where to run: cpu, cuda, cuda:1 ...")

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(*, task: str, batch: int | None, seqlen: int | None, dims: tuple[str, ...], dtype: str | None,
                mode: str | None, trust: bool, **rest: Any) -> Any:  # fmt: skip
            device = rest.pop("device") if on_device else "cpu"
            chosen_mode = "training" if mode == "train" else mode
            kept = {"keeps_runs": True, "store_url": rest["store_url"]} if "store_url" in rest else {}
            choice = TaskChoice(task, parse_dims(batch, seqlen, dims), dtype, chosen_mode, device, trust, **kept)
            return command(choice=choice, **rest)

        for option in reversed([*options, where] if on_device else options):
            run = option(run)
        return run  # type: ignore[return-value]

    return decorate


def parse_dims(batch: int | None, seqlen: int | None, dims: tuple[str, ...]) -> dict[str, int]:
    """The sizes asked for on the command line. Raises click.BadParameter for anything but NAME=SIZE."""
    sizes = {name: size for name, size in (("B", batch), ("L", seqlen)) if size is not None}
    for text in dims:
        name, _, size = text.partition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise click.BadParameter(f"wanted NAME=SIZE with a positive whole number, got {text!r}", param_hint="--dim")
        sizes[name] = int(size)
    return sizes
