"""The command line: one module per verb, loaded when it is called, so that `--help` answers at once."""

import importlib
import keyword
from typing import Any

import click

from gnomon._version import __version__
from gnomon.core.errors import GnomonError

_VERBS = {
    "examine": "the whole job: measure here, forecast elsewhere, sharpen, report",
    "tasks": "the tasks that can be examined",
    "init": "ask a few questions and write a manifest",
    "import": "turn manifests and traces of other tools into ours",
    "validate": "check manifests without running anything",
    "resolve": "follow every reference of a task and print or write its lock",
    "trust": "allow the code inside a manifest to run",
    "diff": "which aspects of two tasks differ, key by key",
    "verify": "run a lock or a reference log again: is the result the same?",
    "run": "measure a task on this machine",
    "loadtest": "a task under load: MLPerf's scenarios, the highest rate, training",
    "trace": "record where one call of a task spends its time",
    "analyze": "standard questions about a stored run: layers, kernels, rooflines, ideal latency",
    "forecast": "latency of a task on devices that are not here",
    "calibrate": "measure kernels here, so that forecasts for this machine are right",
    "characterize": "phases of graph networks here: times, cache, and which guidelines hold",
    "attention": "attention that leaves pairs out: simulated on any device, measured here",
    "sharpen": "try recipes that make a task faster and keep those that hold",
    "compare": "two tasks, two stored measurements, or recipes: faster, slower or no different",
    "gate": "stop a change that makes a task slower than its baseline",
    "aa": "a task compared with itself: what can be seen on this machine",
    "devices": "the catalogue of devices, and this machine's measured peaks",
    "doctor": "what works on this machine, and what each missing part costs",
    "db": "the store of results: list, show, export",
    "export": "a stored run for Perfetto, OpenTelemetry, Parquet, CSV or Markdown",
    "report": "write the report of a stored run again",
}


class _Verbs(click.Group):
    """Imports `gnomon.cli.<verb>` (`import_` for import, a keyword) and takes its attribute `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"gnomon.cli.{name}{'_' * keyword.iskeyword(name)}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GnomonError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gnomon")
def main() -> None:
    """Specify, measure, forecast and sharpen deep-learning workloads.

    Exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 cannot run here, 4 damaged data.
    """
