"""`gnomon forecast break-even`: what sparse and int8 linear layers take on this machine against dense ones."""

import click

from gnomon.cli._common import json_option, print_json, store_option


@click.command()
@click.option("--kind", "kinds", type=click.Choice(["sparsity", "bits"]), multiple=True,
              help="Which table, repeatable. Default: both.")  # fmt: skip
@click.option("--budget", default="1m", show_default=True, metavar="TIME", help="Time for each table, as 30s or 2m.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads to measure with.")
@store_option
@json_option
def command(kinds: tuple[str, ...], budget: str, threads: int, store_url: str | None, as_json: bool) -> None:
    """Measure sparse (CSR) and int8 linear layers on this machine's CPU; --sparsity and --bits then know them."""
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.core.errors import UsageError
    from gnomon.core.units import parse_seconds
    from gnomon.report.breakeven import print_break_even
    from gnomon.store.store import open_store

    try:
        budget_s = parse_seconds(budget)
    except ValueError as error:
        raise UsageError(f"--budget: {error}") from None
    with (
        open_store(store_url).begin("forecast break-even", {"kinds": list(kinds), "budget_s": budget_s}) as run,
        Progress("measuring linear layers") as progress,
    ):
        tables = [
            pipeline.break_even(kind, threads, budget_s, run, progress)  # type: ignore[arg-type]
            for kind in dict.fromkeys(kinds or ("sparsity", "bits"))
        ]
    if as_json:
        print_json({"run": run.id, "tables": tables})
        return
    for table in tables:
        print_break_even(console(), table)
