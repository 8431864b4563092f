"""`gnomon aa`: does a comparison find differences here that are not there, and how small a one can it see?"""

import click

from gnomon.cli._common import TaskChoice, json_option, print_json, store_option, with_task
from gnomon.cli._comparing import margin_option


@click.command()
@with_task(on_device=True)
@click.option("--trials", type=click.IntRange(min=1), default=10, show_default=True, help="Comparisons to make.")
@click.option("--sessions", type=click.IntRange(min=2), default=3, show_default=True,
              help="Fresh processes in each of them.")  # fmt: skip
@click.option("--apart", is_flag=True, help="Each side in processes of its own, as two tasks are compared.")
@margin_option
@store_option
@json_option
def command(choice: TaskChoice, trials: int, sessions: int, apart: bool, margin: float, store_url: str | None,
            as_json: bool) -> None:  # fmt: skip
    """Compare TASK with itself, again and again: how often a difference is found that is not there (A/A check).

    Also what sessions spread by on this machine as it is now, and so the smallest difference that can be seen.
    """
    from gnomon import pipeline
    from gnomon.cli._common import console
    from gnomon.cli._progress import Progress
    from gnomon.report.terminal import print_same_check
    from gnomon.store.store import open_store

    task = choice.resolve()
    arguments = {"trials": trials, "sessions": sessions, "apart": apart, "margin": margin}
    with (
        open_store(store_url).begin("aa", arguments, task.name, task.digest) as run,
        Progress(f"comparing {task.name} with itself") as progress,
    ):
        run.add(task)
        found = pipeline.check_same(
            task, run, trials=trials, sessions=sessions, apart=apart, margin=margin, progress=progress
        )
    if as_json:
        print_json(found)
    else:
        print_same_check(console(), found)
