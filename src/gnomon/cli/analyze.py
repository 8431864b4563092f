"""`gnomon analyze`: standard questions about a stored run, answered from its records."""

from typing import Any

import click

from gnomon.cli._common import json_option, parse_dims, print_json, store_option


@click.command()
@click.argument("subject", metavar="RUN")
@click.argument("names", metavar="[ANALYSIS]...", nargs=-1)
@click.option("--complete", is_flag=True,
              help="Capture the graph, measure peaks and unique operators where the analyses need them.")  # fmt: skip
@click.option("--device", metavar="NAME", help="Take the peaks of this device of the catalogue.")
@click.option(
    "--with", "beside", multiple=True, metavar="RUN", help="Put measurements of this run beside (batch-size)."
)
@click.option("--sweep-batches", metavar="B,B,...", help="RUN is a task: measure it at these batch sizes first.")
@click.option("--sessions", type=click.IntRange(min=1), help="Fresh processes per batch size of a sweep.")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a named dimension, in a sweep.")
@click.option("--rows", type=click.IntRange(min=1), default=20, show_default=True, help="Rows shown of each table.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, numbers in base units.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
@click.option("--html", "as_html", is_flag=True, help="Print sections of HTML.")
@store_option
@json_option
def command(
    subject: str,
    names: tuple[str, ...],
    complete: bool,
    device: str | None,
    beside: tuple[str, ...],
    sweep_batches: str | None,
    sessions: int | None,
    dims: tuple[str, ...],
    rows: int,
    as_csv: bool,
    as_markdown: bool,
    as_html: bool,
    store_url: str | None,
    as_json: bool,
) -> None:
    """Answer standard questions about RUN: a stored measurement, or an imported trace.

    Without an ANALYSIS: which there are, and which of them this run can answer. 'all' is every one; A1 to A15 are those
    of XSP.
    """
    from gnomon.cli._common import console
    from gnomon.core.errors import UsageError
    from gnomon.measure.analyses import registry
    from gnomon.pipeline import analyzing
    from gnomon.report import analyses as printing
    from gnomon.store.store import open_store

    if sum((as_csv, as_markdown, as_html, as_json)) > 1:
        raise UsageError("wanted one of --json, --csv, --markdown and --html; got several")
    if sweep_batches is None and (dims or sessions):
        raise UsageError("--dim and --sessions belong to --sweep-batches; a stored run has its sizes")
    chosen = registry.chosen(names)  # before any work: a wrong name costs nothing
    store = open_store(store_url)
    if sweep_batches is not None:
        subject = _sweep(store, subject, sweep_batches, sessions, parse_dims(None, None, dims))
        chosen = chosen or ["batch-size"]
    found = analyzing.subject(store, subject, beside=beside, device=device)
    if complete:
        found = _completed(store, subject, found, chosen or list(registry.FORMS))
    if not chosen:
        offers = [(form, registry.analyze(found, name).missing) for name, form in registry.FORMS.items()]
        if as_json:
            print_json([{"name": f.name, "title": f.title, "question": f.question, "missing": m} for f, m in offers])
        else:
            printing.print_offers(console(), offers, found.name)
        return
    answers = analyzing.analyze(found, chosen)
    if as_json:
        print_json(answers)
    elif as_csv:
        click.echo(printing.as_csv(answers), nl=False)
    elif as_markdown:
        click.echo(printing.as_markdown(answers), nl=False)
    elif as_html:
        click.echo(printing.as_html(answers), nl=False)
    else:
        for answer in answers:
            printing.print_analysis(console(), answer, rows)


def _sweep(store: Any, name: str, batches: str, sessions: int | None, dims: dict[str, int]) -> str:
    """Measure the task at each batch size; the id of the run."""
    from gnomon.cli._progress import Progress
    from gnomon.core.errors import UsageError
    from gnomon.pipeline import analyzing
    from gnomon.spec.resolve import resolve

    sizes = [part.strip() for part in batches.split(",")]
    if not all(part.isdecimal() for part in sizes):
        raise UsageError(f"--sweep-batches wants whole numbers with commas between, such as 1,2,4,8; got {batches!r}")
    with (
        store.begin("sweep-batches", {"batches": batches, "sessions": sessions}, name) as run,
        Progress(f"measuring {name} at batch sizes {batches}") as progress,
    ):
        analyzing.sweep_batches(
            lambda batch: resolve(name, dims={**dims, "B": batch}),
            [int(part) for part in sizes],
            run,
            sessions=sessions,
            progress=progress,
        )
    return str(run.id)


def _completed(store: Any, name: str, found: Any, chosen: list[str]) -> Any:
    """The subject with what it lacked, stored under a run of its own."""
    from gnomon.cli._progress import Progress
    from gnomon.pipeline import analyzing

    row = store.run(name)
    with (
        store.begin("analyze", {"run": row.id, "analyses": chosen}, row.task, row.task_digest) as run,
        Progress(f"completing {found.name}") as progress,
    ):
        return analyzing.complete(store, row.id, found, chosen, run, progress=progress)
