"""Where the artifacts of a task are kept."""

from pathlib import Path

from gnomon.core import paths
from gnomon.spec.task import Task


def artifacts(task: Task) -> Path:
    """The folder, made if need be, for what recipes build of this task."""
    folder = paths.home() / "artifacts" / task.digest.removeprefix("sha256:")[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder
