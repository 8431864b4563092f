"""The lock of a task: the digest of every manifest, inline part and file that it was resolved from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gnomon.core.errors import DamagedData, UsageError
from gnomon.core.records import from_json, record, to_json
from gnomon.spec.task import Task


@record("lock", 1)
@dataclass(frozen=True, slots=True)
class Lock:
    """parts: 'task', 'model', 'model.weights', 'dataset.files.texts' ... -> 'sha256:...'."""

    task: str
    version: str
    parts: Mapping[str, str]


def lock_of(task: Task) -> Lock:
    """What a task was resolved from."""
    return Lock(task.name, task.version, dict(sorted(task.lock.items())))


def write_lock(task: Task, path: Path) -> None:
    """Write the lock of a task as JSON, the same bytes each time."""
    text = json.dumps(to_json(lock_of(task)), indent=2, sort_keys=True, ensure_ascii=False)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def read_lock(path: Path) -> Lock:
    """A written lock. Raises UsageError when there is no such file, DamagedData when it is no lock."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedData(
            f"{path}: this is no lock: {error}. Write it again with gnomon resolve TASK --lock"
        ) from error
    try:
        return from_json(document, Lock)
    except DamagedData as error:
        raise DamagedData(f"{path}: {error}") from error


def check_lock(task: Task, lock: Lock) -> list[str]:
    """In what a task differs from a lock, a line each; an empty list when it is bit for bit the same specification."""
    now = lock_of(task)
    differences = []
    if (lock.task, lock.version) != (now.task, now.version):
        differences.append(f"task: locked {lock.task}@{lock.version}, now {now.task}@{now.version}")
    for part in sorted({*lock.parts, *now.parts}):
        locked, found = lock.parts.get(part), now.parts.get(part)
        if locked != found:
            differences.append(f"{part}: locked {locked or 'nothing'}, now {found or 'nothing'}")
    return differences
