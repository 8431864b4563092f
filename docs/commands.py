"""Writes docs/cli.md from the commands themselves: `python docs/commands.py`. A test keeps the page up to date."""

from pathlib import Path

import click

from gnomon.cli import main

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# The command line

Written from the commands by `python docs/commands.py`. People get tables, `--json` gives one JSON document on standard
output, everything else goes to standard error. Shell completion for bash, zsh and fish comes from click:
`eval "$(_GNOMON_COMPLETE=bash_source gnomon)"`.

Exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 cannot run here, 4 damaged data.
"""


def page() -> str:
    """The whole page, as MyST."""
    context = click.Context(main, info_name="gnomon", **main.context_settings)
    parts = [HEAD]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        parts += _sections(command, name, context)
    return "\n".join(parts)


def _sections(command: click.Command, name: str, parent: click.Context) -> list[str]:
    context = click.Context(command, parent, info_name=name, terminal_width=100, max_content_width=100)
    parts = [f"## {context.command_path}\n", f"```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for inner_name in command.list_commands(context):
            inner = command.get_command(context, inner_name)
            assert inner is not None
            parts += _sections(inner, inner_name, context)
    return parts


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.name}")
