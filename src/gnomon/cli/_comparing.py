"""What compare, gate and aa share: options in per cent and in sessions, and what a name on the command line means."""

from typing import TYPE_CHECKING, Any

import click

from gnomon.core.errors import GnomonError, UnknownName, UsageError

if TYPE_CHECKING:
    from gnomon.core.looks import Looks
    from gnomon.spec.task import Task
    from gnomon.store.store import RunRow, Store


class Percent(click.ParamType):
    """'2%' as 0.02. A number without the sign could be either, so it is refused."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        number, sign, rest = str(value).partition("%")
        try:
            fraction = float(number) / 100
        except ValueError:
            fraction = -1.0
        if not sign or rest or not 0 < fraction < 1:
            self.fail(f"wanted per cent, more than 0% and less than 100%, such as 5%; got {value!r}", param, ctx)
        return fraction


class Sessions(click.ParamType):
    """A number of fresh processes, or 'auto'."""

    name = "sessions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "int | str":
        if value == "auto" or (isinstance(value, int) and value >= 1):
            return value
        if str(value).isdecimal() and int(value) >= 1:
            return int(value)
        self.fail(f"wanted a number of fresh processes, or auto; got {value!r}", param, ctx)


sessions_option = click.option(
    "--sessions", type=Sessions(), metavar="N|auto", default="auto", show_default=True,
    help="Fresh processes, the unit of replication; auto adds them until the answer is known.",
)  # fmt: skip
most_option = click.option(
    "--most", type=click.IntRange(min=3), default=20, show_default=True, help="Sessions that auto may take."
)
margin_option = click.option(
    "--margin", type=Percent(), default="2%", show_default=True, help="The difference up to which both count as equal."
)
clock_option = click.option(
    "--clock", type=click.Choice(["cpu", "wall"]), help="Compare this time. Default: cpu on a CPU, wall on a device."
)


def sessions_or_looks(sessions: "int | str", most: int) -> "int | Looks":
    """What `measure.compare` takes."""
    from gnomon.measure.compare import auto

    return auto(most) if isinstance(sessions, str) else sessions


def run_or_task(store: "Store", name: str, **resolving: Any) -> "RunRow | Task":
    """A stored run of this id (or unique beginning), else the task of this name or file; resolving: as for `resolve`.

    Raises UsageError that says why it is neither.
    """
    from pathlib import Path

    from gnomon.spec.resolve import resolve

    if Path(name).exists():
        return resolve(name, **resolving)
    try:
        return store.run(name)
    except UnknownName as error:
        no_run = error
    try:
        return resolve(name, **resolving)
    except GnomonError as error:
        raise UsageError(f"{name!r} is neither a stored run nor a task. {no_run}. {error}") from error
