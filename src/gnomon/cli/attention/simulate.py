"""`gnomon attention simulate`: tiles of a window counted, and its time on any device."""

from typing import TYPE_CHECKING

import click

from gnomon.cli._common import console, json_option, print_json, progress_console
from gnomon.cli.attention._options import as_usage, sizes, with_problem

if TYPE_CHECKING:
    from gnomon.forecast.windowed import Heads
    from gnomon.kernels.neighborhood_attention.problem import Problem
    from gnomon.kernels.neighborhood_attention.tiles import TilePair


@click.command()
@with_problem(required=False, dtype="bfloat16")
@click.option("--tile", "tiles", multiple=True, metavar="SIZES",
              help="Tile of queries and keys, 16x8, or of each, 16x8/8x8; repeatable. Default: the best of 128 tokens "
                   "each.")  # fmt: skip
@click.option("--device", "devices", multiple=True, metavar="NAME",
              help="A device of the catalogue, a file of your own, 'cpu' for this machine, or 'all' for the catalogue; "
                   "repeatable.")  # fmt: skip
@click.option("--tiles", "lists", is_flag=True, help="List the valid tiles, the least work first, and stop.")
@click.option(
    "--elements", metavar="N[/N]", help="Tokens of the tiles that are listed or chosen from, as 128 or 256/64."
)
@click.option("--rows", type=click.IntRange(min=1), default=20, show_default=True, help="Tiles to list.")
@click.option("--published", is_flag=True, help="The published problems, beside what we count and forecast.")
@json_option
def command(
    problems: "list[Problem]",
    what: "Heads",
    tiles: tuple[str, ...],
    devices: tuple[str, ...],
    lists: bool,
    elements: str | None,
    rows: int,
    published: bool,
    as_json: bool,
) -> None:
    """Count the tiles that a window touches, and forecast its speed-up over dense attention and its time.

    The count is exact for any window, stride, dilation and tile. Times come from the forecast of dense attention,
    scaled by the tiles; what is known and what is guessed is said below the table. Give several --stride or --tile to
    compare them.
    """
    from gnomon.pipeline import attending

    if published:
        if problems:
            raise click.UsageError("--published has problems of its own; leave out --space and --window")
        _published(as_json)
        return
    if not problems:
        raise click.UsageError("give --space and --window, or --published")
    with as_usage():
        queries, keys = _elements(elements)
        if lists:
            _list(problems, queries, keys, rows, as_json)
            return
        pairs = [_pair(text) for text in tiles]
        if elements is not None and not pairs:
            pairs = [attending.ranked_tiles(problem, queries, keys)[0].tiles for problem in problems[:1]]
        chosen = [attending.attention_device(name, _say) for name in _names(devices)]
        found = attending.simulate_attention(problems, what, chosen, pairs)
    for name, reason in {k: v for one in found for k, v in one.refused.items()}.items():
        click.echo(f"{name}: {reason}", err=True)
    if as_json:
        print_json({"attention": what, "simulated": found})
        return
    from gnomon.report.attention import print_tiles, print_windowed

    print_tiles(console(), problems[0], [one.counted for one in found], [one.problem for one in found])
    if chosen:
        print_windowed(console(), [(one.problem, one.counted.tiles, w) for one in found for w in one.forecasts])


def _published(as_json: bool) -> None:
    from gnomon.kernels.neighborhood_attention.published import CASES, SOURCE
    from gnomon.pipeline import attending
    from gnomon.report.attention import print_published

    forecasts = attending.published_attention()
    if not as_json:
        print_published(console(), forecasts)
        return
    rows = [
        {
            "problem": case.problem,
            "tiles": case.tiles.query,
            "card": {"flop_bound": case.flop_bound, "tile_bound": case.tile_bound},
            "ours": {"flop_bound": case.counted.flop_bound, "tile_bound": case.counted.tile_bound, "forecast": found},
            "measured": {"speedup": case.speedup, "seconds": case.seconds, "flop_s": case.flop_s},
        }
        for case, found in zip(CASES, forecasts, strict=True)
    ]
    print_json({"source": SOURCE, "cases": rows})


def _list(problems: "list[Problem]", queries: tuple[int, ...], keys: tuple[int, ...], rows: int, as_json: bool) -> None:
    from gnomon.pipeline import attending
    from gnomon.report.attention import print_valid

    ranked = [attending.ranked_tiles(problem, queries, keys) for problem in problems]
    if as_json:
        print_json([{"problem": p, "tiles": found} for p, found in zip(problems, ranked, strict=True)])
        return
    for problem, found in zip(problems, ranked, strict=True):
        print_valid(console(), problem, found, rows)


def _pair(text: str) -> "TilePair":
    from gnomon.kernels.neighborhood_attention.tiles import TilePair

    query, _, kv = text.partition("/")
    return TilePair(sizes(query, "--tile"), sizes(kv or query, "--tile"))


def _elements(text: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if text is None:
        return (), ()
    query, _, kv = text.partition("/")
    return sizes(query, "--elements")[:1], sizes(kv or query, "--elements")[:1]


def _names(devices: tuple[str, ...]) -> list[str]:
    from gnomon.devices import catalogue

    return list(dict.fromkeys(name for one in devices for name in (catalogue.names() if one == "all" else [one])))


def _say(message: str) -> None:
    progress_console().print(message, style="dim", markup=False)
