"""`gnomon attention`: windows, detectors and uneven lengths, simulated and measured."""

import importlib

import click

_VERBS = {
    "simulate": "tiles that a window touches, and its speed-up and time on any device",
    "profile": "time a window here with every backend side by side",
    "accelerator": "DOTA's accelerator cycle by cycle, against dense",
    "pipeline": "uneven sequences through an encoder cut into stages",
}


class _Attention(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"gnomon.cli.attention.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Attention)
def command() -> None:
    """Attention that leaves pairs out: what it would gain, and what it takes here."""
