"""One session's process, started and described: what a measurement and a comparison have in common. No torch here."""

import datetime
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal

from gnomon.core.errors import UsageError
from gnomon.core.process import JSON, call
from gnomon.core.records import to_json
from gnomon.devices.host import host
from gnomon.measure.record import Environment, Session
from gnomon.spec.task import Task

Progress = Callable[[str], None]
Clock = Literal["wall", "cpu"]

_CALL_BUDGET_S = 1.0  # timed seconds per variant and session; a slow task gets fewer calls, not a longer run
_PACKAGES = ("torch", "numpy", "transformers", "onnxruntime", "onnx", "safetensors")


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run a task. prepare: 'module:function', called as prepare(program, options) -> Program; None: as is."""

    name: str
    prepare: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def run_session(
    task: Task,
    variants: Sequence[Variant],
    function: str,
    seed: int,
    calls: int,
    say: Progress | None = None,
    more: Mapping[str, Any] | None = None,
) -> JSON:
    """What `session.<function>` returns, run in a fresh process with the task's threads and environment.

    more: arguments beyond those of `session.times`. Raises as `core.process.call` does.
    """
    arguments = {
        "task": to_json(task),
        "variants": [to_json(variant) for variant in variants],
        "calls": calls,
        "budget_s": _CALL_BUDGET_S,
        "warmup_s": task.protocol.warmup_s,
        "seed": seed,
        **(more or {}),
    }
    return call(
        f"gnomon.measure.session:{function}",
        arguments,
        timeout_s=task.protocol.timeout_s,
        env=child_env(task),
        on_progress=say,
    )


def child_env(task: Task) -> dict[str, str]:
    """Variables that the process of a task must start with: its threads, its own, and what makes it deterministic."""
    # the pools of OpenMP and MKL are sized when the library is loaded; hashes order sets, so they are part of the seed
    threads = str(task.threads)
    env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONHASHSEED": "0", **task.env}
    if task.deterministic:
        env.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for, or cuBLAS is refused
    return env


def checked(task: Task, sessions: int | None) -> int:
    """The number of sessions, by default the protocol's. Raises UsageError for a size or count below 1."""
    for name, size in task.dims.items():
        if size < 1:
            raise UsageError(f"task {task.name}: dimension {name} is {size}; a measurement needs a size of at least 1")
    sessions = task.protocol.sessions if sessions is None else sessions
    for name, count in (("sessions", sessions), ("calls", task.protocol.calls), ("threads", task.threads)):
        if count < 1:
            raise UsageError(f"task {task.name}: {name} is {count}; wanted at least 1")
    return sessions


def clocked(session: Session, clock: Clock) -> tuple[float, ...]:
    """Seconds per call by one of the two clocks."""
    return session.cpu_s if clock == "cpu" else session.wall_s


def environment(task: Task, allocator: str, started_at: str) -> Environment:
    """This machine and its software. allocator: the regime that a session reported."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    machine: Mapping[str, Any] = to_json(host())
    return Environment(machine, platform.python_version(), versions, task.threads, allocator, task.device, started_at)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def silent(text: str) -> None:
    """No progress is wanted."""
