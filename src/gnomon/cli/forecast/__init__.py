"""`gnomon forecast`: latency on devices that are not here. The first argument is a TASK unless it is a verb."""

import importlib

import click

_VERBS = {
    "sweep": "batch x device x dtype: which device to take",
    "evaluate": "the accuracy of forecasts on a pack of measurements",
    "fit": "fit the predictor anew from a pack of measurements",
    "opgraph": "forecast the operator graphs of a pack on one device",
    "break-even": "measure what sparse and int8 linear layers take on this machine",
}
_TASK = "TASK"  # no name that a user would type: the verb that is meant when there is none


class _Forecast(click.Group):
    """Sub-verbs beside a default: what is no verb is the TASK (one called 'sweep' is written ./sweep, or after --)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        module = "task" if name == _TASK else name.replace("-", "_") if name in _VERBS else None
        if module is None:
            return None
        found: click.Command = importlib.import_module(f"gnomon.cli.forecast.{module}").command
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*_VERBS, *ctx.help_option_names):
            args = [_TASK, *args]
        return super().parse_args(ctx, args)

    def _default(self, ctx: click.Context) -> click.Command:
        command = self.get_command(ctx, _TASK)
        assert command is not None
        return command

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS] TASK")
        formatter.write_usage(ctx.command_path, "VERB ...", prefix="       ")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self._default(ctx).format_help_text(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        click.Command.format_options(self._default(ctx), ctx, formatter)
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Forecast, invoke_without_command=False)
def command() -> None:
    """Forecast a task."""
