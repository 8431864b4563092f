"""What the verbs of `gnomon attention` share: a window on the command line, and errors of its parts as usage."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gnomon.core.errors import UsageError

if TYPE_CHECKING:
    from gnomon.forecast.windowed import Heads
    from gnomon.kernels.neighborhood_attention.problem import Problem

F = TypeVar("F", bound=Callable[..., Any])
at_least_one = click.IntRange(min=1)


def sizes(text: str, option: str) -> tuple[int, ...]:
    """'256x256' -> (256, 256). Raises click.BadParameter naming the option."""
    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise click.BadParameter(
            f"wanted whole numbers with x between them, as 16x8; got {text!r}", param_hint=option
        ) from None


def causal(text: str | None, axes: int) -> tuple[bool, ...]:
    """'all', or one digit per axis: '1x0x0'. Raises click.BadParameter."""
    if text is None or text == "all":
        return (text == "all",) * axes
    digits = sizes(text, "--causal")
    if len(digits) != axes or any(digit not in (0, 1) for digit in digits):
        raise click.BadParameter(
            f"wanted 'all', or 0 or 1 for each of {axes} axes; got {text!r}", param_hint="--causal"
        )
    return tuple(digit == 1 for digit in digits)


@contextlib.contextmanager
def as_usage() -> Iterator[None]:
    """An argument that a library function refuses is wrong usage of the command."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def with_problem(*, required: bool, dtype: str) -> Callable[[F], F]:
    """Options of a window and of the call it stands in: `problems` (one for each --stride) and `what`.

    required: --space and --window must be given; else `problems` is empty without them.
    """
    options = [
        click.option("--space", required=required, metavar="SIZES", help="The tokens: 4096, 256x256, 30x48x80."),
        click.option("--window", required=required, metavar="SIZES",
                     help="The window, for every axis or one size for all: 7, 80x80."),
        click.option("--stride", "strides", multiple=True, default=("1",), show_default=True, metavar="SIZES",
                     help="Queries that share a window; repeatable."),
        click.option("--dilation", default="1", show_default=True, metavar="SIZES", help="Gaps between keys."),
        click.option("--causal", "is_causal", metavar="AXES", help="'all', or 0 or 1 for each axis: 1x0x0."),
        click.option("--heads", type=at_least_one, default=1, show_default=True, help="Heads of queries."),
        click.option("--kv-heads", type=at_least_one, help="Heads of keys and values. Default: as many."),
        click.option("--head-dim", type=at_least_one, default=64, show_default=True, help="Size of a head."),
        click.option("--batch", type=at_least_one, default=1, show_default=True, help="Grids at once."),
        click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16", "float64"]), default=dtype,
                     show_default=True),
        click.option("--backward", is_flag=True, help="Forward and backward pass."),
    ]  # fmt: skip

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(*, space: str | None, window: str | None, strides: tuple[str, ...], dilation: str,
                is_causal: str | None, heads: int, kv_heads: int | None, head_dim: int, batch: int, dtype: str,
                backward: bool, **rest: Any) -> Any:  # fmt: skip
            if (space is None) != (window is None):
                raise click.UsageError("--space and --window go together")
            with as_usage():
                problems = [_problem(space, window or "", one, dilation, is_causal) for one in strides if space]
                what = _heads(heads, head_dim, batch, kv_heads, dtype, backward)
            return command(problems=problems, what=what, **rest)

        for option in reversed(options):
            run = option(run)
        return run  # type: ignore[return-value]

    return decorate


def _problem(space: str | None, window: str, stride: str, dilation: str, is_causal: str | None) -> "Problem":
    from gnomon.kernels.neighborhood_attention.problem import Problem

    grid = sizes(space or "", "--space")
    return Problem.of(
        grid,
        _per_axis(window, "--window"),
        _per_axis(stride, "--stride"),
        _per_axis(dilation, "--dilation"),
        causal(is_causal, len(grid)),
    )


def _per_axis(text: str, option: str) -> int | tuple[int, ...]:
    found = sizes(text, option)
    return found[0] if len(found) == 1 else found


def _heads(heads: int, head_dim: int, batch: int, kv_heads: int | None, dtype: str, backward: bool) -> "Heads":
    from gnomon.forecast.windowed import Heads

    return Heads(heads, head_dim, batch, kv_heads, dtype, backward)
