"""`gnomon doctor`: what works on this machine, and what each missing part costs."""

import click

from gnomon.cli._common import console, json_option, print_json
from gnomon.core.errors import NotRunnable


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Look at compiler, GPU, allocator, counters, threads and packages; exit 3 only when torch itself is broken."""
    from gnomon.measure.doctor import examine_host

    findings = examine_host()
    if as_json:
        print_json(findings)
    else:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("", no_wrap=True)
        table.add_column("part", no_wrap=True)
        table.add_column("finding", overflow="fold")
        colours = {"ok": "green", "missing": "red", "slow": "yellow"}
        for finding in findings:
            text = finding.detail
            if finding.status != "ok":
                text += f"\ncosts: {finding.cost}\nremedy: {finding.remedy}"
            table.add_row(f"[{colours[finding.status]}]{finding.status}[/]", finding.name, _plain(text))
        console().print(table)
    broken = [finding for finding in findings if finding.name == "torch" and finding.status == "missing"]
    if broken:
        raise NotRunnable(f"torch does not work here: {broken[0].detail}. {broken[0].remedy}")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
