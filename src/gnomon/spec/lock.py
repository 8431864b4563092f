"""The lock of a task: how to find it again, and the digest of every manifest, inline part and file of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from gnomon.core.errors import DamagedData, UsageError
from gnomon.core.records import NOT_EMPTY, from_json, record, to_json
from gnomon.spec.grammar import DIGEST, NAME, VERSION
from gnomon.spec.task import FloatDtype, Mode, Size, Task


@record("lock", 2)
@dataclass(frozen=True, slots=True)
class Lock:
    """parts: 'task', 'model', 'model.weights', 'dataset.files.texts' ... -> 'sha256:...'.

    target: what resolves into the task: its name, 'module:callable', or a file, which is relative to the lock's folder
    when it lies there. search: further folders. dims, dtype, mode, device: as it was resolved; None where version 1 of
    the lock did not say. digest: of the task with these sizes. outputs: digest of what it computed, if known.
    """

    task: Annotated[str, NAME]
    version: Annotated[str, VERSION]
    parts: Mapping[str, Annotated[str, DIGEST]]
    target: Annotated[str, NOT_EMPTY]
    search: tuple[str, ...] = ()
    dims: Mapping[str, Size] = field(default_factory=dict)
    dtype: FloatDtype | None = None
    mode: Mode | None = None
    device: str = "cpu"
    digest: Annotated[str, DIGEST] | None = None
    outputs: Annotated[str, DIGEST] | None = None


def lock_of(task: Task, outputs: str | None = None) -> Lock:
    """What a task was resolved from. outputs: digest of what it computed."""
    return Lock(
        task=task.name,
        version=task.version,
        parts=dict(sorted(task.lock.items())),
        target=task.named,
        search=task.search,
        dims=dict(sorted(task.dims.items())),
        dtype=task.dtype,  # type: ignore[arg-type]  # a resolved task's dtype is a floating one
        mode=task.mode,
        device=task.device,
        digest=task.digest,
        outputs=outputs,
    )


def write_lock(task: Task, path: Path, outputs: str | None = None) -> None:
    """Write the lock of a task as JSON, the same bytes each time."""
    lock = lock_of(task, outputs)
    lock = replace(lock, target=relative_target(lock.target, path.parent))
    text = json.dumps(to_json(lock), indent=2, sort_keys=True, ensure_ascii=False)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def is_lock(path: Path) -> bool:
    """Is this file a lock, of whatever version? Reads no more than its beginning unless it is one."""
    try:
        with path.open("rb") as file:
            if file.read(64).lstrip()[:1] != b"{":
                return False
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and str(document.get("schema", "")).startswith("gnomon/lock/")


def read_lock(path: Path) -> Lock:
    """A written lock, of version 1 too. Raises UsageError when it cannot be read, DamagedData when it is none."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedData(
            f"{path}: this is no lock: {error}. Write it again with gnomon resolve TASK --lock"
        ) from error
    try:
        lock = from_json(_of_today(document), Lock)
    except DamagedData as error:
        raise DamagedData(f"{path}: {error}", outcome=error.outcome) from error
    return replace(lock, target=absolute_target(lock.target, path.parent))


def _of_today(document: Any) -> Any:
    """A lock of version 1 as one of version 2: it named no target, so its task's name and version are that."""
    if isinstance(document, dict) and document.get("schema") == "gnomon/lock/1":
        target = f"{document.get('task')}@{document.get('version')}"
        return {**document, "schema": "gnomon/lock/2", "target": target}
    return document


def relative_target(target: str, folder: Path) -> str:
    """A file in `folder` as './path', so that both can be moved together; anything else as it is."""
    path = Path(target)
    if path.is_absolute() and path.is_relative_to(folder.resolve()):
        return f"./{path.relative_to(folder.resolve()).as_posix()}"
    return target


def absolute_target(target: str, folder: Path) -> str:
    """The reverse of `relative_target`."""
    return str((folder / PurePosixPath(target)).resolve()) if target.startswith("./") else target


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
