"""`gnomon attention profile`: one window on this machine, every backend side by side."""

from typing import TYPE_CHECKING

import click

from gnomon.cli._common import console, json_option, print_json, store_option
from gnomon.cli.attention._options import as_usage, with_problem

if TYPE_CHECKING:
    from gnomon.forecast.windowed import Heads
    from gnomon.kernels.neighborhood_attention.problem import Problem


@click.command()
@with_problem(required=True, dtype="float32")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Only these; repeatable. Default: all.")
@click.option("--repeats", type=click.IntRange(min=1), default=20, show_default=True, help="Rounds of one call each.")
@click.option("--max-seconds", type=click.FloatRange(min=0), default=120.0, show_default=True,
              help="Stop after this time, but not before three rounds.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of torch.")
@store_option
@json_option
def command(
    problems: "list[Problem]",
    what: "Heads",
    device: str,
    backends: tuple[str, ...],
    repeats: int,
    max_seconds: float,
    threads: int,
    store_url: str | None,
    as_json: bool,
) -> None:
    """Time neighborhood attention here with every backend that can run it, and say why the others cannot.

    Results are compared before anything is timed. Times are kept, and backend="auto" goes by them. Several --stride
    are profiled one after another.
    """
    import torch

    from gnomon.cli._progress import Progress
    from gnomon.core.records import to_json
    from gnomon.pipeline import attending
    from gnomon.report.attention import print_profile
    from gnomon.store.store import open_store

    torch.set_num_threads(threads)
    arguments = {"problems": to_json(problems), "attention": to_json(what), "device": device, "threads": threads}
    with (
        open_store(store_url).begin("attention profile", arguments) as run,
        Progress("profiling attention") as progress,
        as_usage(),
    ):
        found = [
            attending.profile_attention(
                run, problem, what, device=device, backends=backends, repeats=repeats, max_seconds=max_seconds,
                progress=progress,
            )
            for problem in problems
        ]  # fmt: skip
    if as_json:
        print_json({"run": run.id, "profiles": found})
        return
    for profile in found:
        print_profile(console(), profile)
    console().print(f"stored as run {run.id}")
