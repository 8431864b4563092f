"""Run a function in a fresh process of its own, with a time limit and a memory limit, and leave nothing behind.

A measurement needs a process that nothing else has touched, and code of a manifest must not be able to take the caller
down. The child is `python -m gnomon.core.process`, in a process group of its own. Its result and its progress come back
through a pipe of their own, so that whatever the model prints cannot be mistaken for them.

The memory limit is a watch on the resident memory of the group, not RLIMIT_AS: torch, its thread pools and CUDA
reserve far more address space than they ever touch (hundreds of GiB with CUDA), so a limit on addresses stops programs
that fit, and does so by crashes inside native code instead of an error that can be told.

The group dies with its caller, however that ends: its leader is a supervisor that runs no code but ours and watches a
pipe whose other end only the caller holds. When the pipe closes it kills the group. The worker, its child, dies with
the supervisor (PR_SET_PDEATHSIG on Linux).
"""

import ctypes
import faulthandler
import importlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from gnomon.core.errors import OUTCOMES, CheckFailed, GnomonError, NotRunnable, outcome_of
from gnomon.core.units import format_bytes, format_seconds

JSON = Any  # what json.dumps accepts without help

_WATCH_S = 0.05  # a program touches at most some hundred MB of fresh pages between two looks
_LEAVE_S = 5.0  # time to exit after the result has come; a hanging exit hook is no failure
_TAIL_LINES = 12
_LONGEST_MESSAGE = 2**30  # bytes; a result with a million spans is a fifth of it
_SHOWN = 80
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def call(
    target: str,
    arguments: JSON,
    *,
    timeout_s: float,
    memory_bytes: int | None = None,
    env: Mapping[str, str] | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> JSON:
    """The result of `function(arguments)` for target 'module:function', run in a fresh child process.

    arguments and the result are plain JSON values. timeout_s counts from the start of the child, imports included.
    memory_bytes bounds the resident memory of the child and its own children together. env is added to this process's
    environment. on_progress gets each text that the function passes to `progress`.

    Raises what the function raised when that is a GnomonError; CheckFailed with the end of the traceback or output
    when it failed, crashed, or sent what is no message; NotRunnable when it ran out of time or memory. The error's
    `outcome` tells these apart: child-died, child-garbage, timed-out, out-of-memory. The child and everything
    that it started (and did not put into a group of its own) is dead when this returns or raises.
    """
    if timeout_s <= 0:
        raise ValueError(f"timeout_s must be positive; got {timeout_s}")
    if memory_bytes is not None and not Path("/proc/self/statm").exists():
        raise NotRunnable("a memory limit needs /proc, which this system does not have; run without one")
    with tempfile.TemporaryDirectory(prefix="gnomon-") as folder:
        request, output = Path(folder, "request.json"), Path(folder, "output.txt")
        request.write_text(json.dumps({"target": target, "arguments": arguments}, allow_nan=False))
        with _child(request, output, env) as (process, messages):
            ending = _listen(process, messages, time.monotonic() + timeout_s, memory_bytes, on_progress)
        tail = _tail(output.read_text(errors="replace"))
    if ending.garbage is not None:
        raise CheckFailed(
            f"the process of {target} sent {ending.garbage} where its result was expected, and was stopped. Does its "
            f"code write to a file descriptor that it did not open?{tail}",
            outcome="child-garbage",
        )
    if ending.message is not None and "result" in ending.message:
        return ending.message["result"]
    if ending.message is not None:
        raise _rebuilt(target, ending.message, tail)
    if ending.limit == "time":
        raise NotRunnable(
            f"{target} did not end within {format_seconds(timeout_s)} and was stopped{tail}", outcome="timed-out"
        )
    if ending.limit == "memory" and memory_bytes is not None:
        limit, used = format_bytes(memory_bytes), format_bytes(ending.resident_bytes)
        raise NotRunnable(
            f"{target} was stopped at {used} of memory; its limit is {limit}{tail}", outcome="out-of-memory"
        )
    raise _died(target, process.returncode, tail)


def progress(text: str) -> None:
    """Tell the process that waits in `call` how far the work is. Does nothing outside such a child."""
    if _send is not None:
        _send({"progress": text})


class _Ending(NamedTuple):
    message: dict[str, Any] | None  # the child's last word: its result or its error
    limit: str | None = None
    resident_bytes: int = 0
    garbage: str | None = None  # what came instead of a message, shortened


@contextmanager
def _child(request: Path, output: Path, env: Mapping[str, str] | None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A running child and the pipe that it speaks through; on the way out its whole group is killed and reaped."""
    messages, speak = os.pipe()
    watched, lifeline = os.pipe()
    # -P: the current folder must not be able to replace a module such as random or torch
    command = [sys.executable, "-P", "-m", "gnomon.core.process"]
    command += [str(request), str(speak), str(watched)]
    process = None
    try:
        with output.open("wb") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=_environment(env),
                pass_fds=(speak, watched),
                start_new_session=True,  # its own group; the terminal's Ctrl-C reaches only us, and we kill the group
            )
        os.close(speak)
        speak = -1
        yield process, messages
    finally:
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):  # Darwin says EPERM for a group of zombies
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for end in (messages, speak, watched, lifeline):
            if end >= 0:
                os.close(end)


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    env = {**os.environ, **(extra or {})}
    root = str(Path(__file__).resolve().parents[2])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):  # a plain checkout
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    return env


def _listen(
    process: subprocess.Popen[bytes],
    messages: int,
    deadline: float,
    memory_bytes: int | None,
    on_progress: Callable[[str], None] | None,
) -> _Ending:
    buffer, last = bytearray(), None
    with selectors.DefaultSelector() as selector:
        selector.register(messages, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return _Ending(None, "time")
            # a grandchild can hold the pipe open after the child's death, so never wait for its end alone
            ready = selector.select(min(left, 1.0 if memory_bytes is None else _WATCH_S))
            if memory_bytes is not None and (resident := _resident_bytes(process.pid)) > memory_bytes:
                return _Ending(None, "memory", resident)
            if not ready:
                if process.poll() is not None:
                    return _Ending(last)
                continue
            chunk = os.read(messages, 1 << 20)
            begins, newline, rest = chunk.partition(b"\n")
            buffer += begins  # a long result comes in thousands of chunks: only what is new is looked at
            lines = []
            if newline:
                *others, last_part = rest.split(b"\n")
                lines, buffer = [bytes(buffer), *others], bytearray(last_part)
            if len(buffer) > _LONGEST_MESSAGE:
                return _Ending(None, garbage=f"over {format_bytes(_LONGEST_MESSAGE)} without a line's end")
            for line in lines:
                message = _message(line)
                if message is None:
                    return _Ending(None, garbage=repr(line[:_SHOWN]) + (" ..." if len(line) > _SHOWN else ""))
                if "progress" not in message:
                    last = message
                    break
                if on_progress is not None:
                    on_progress(message["progress"])
            if last is not None or not chunk:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LEAVE_S if last is not None else max(left, 0.0))
                return _Ending(last)


def _message(line: bytes) -> dict[str, Any] | None:
    """A line as the message that `_serve` sent (progress, result, or what `_described` makes); None when it is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    if "progress" in message:
        return message if isinstance(message["progress"], str) else None
    if "result" in message:
        return message
    texts = ("error", "text", "traceback", "outcome")
    fits = all(isinstance(message.get(key), str) for key in texts) and isinstance(message.get("classes"), list)
    return message if fits and isinstance(message.get("out_of_memory"), bool) else None


def _resident_bytes(leader: int) -> int:
    """Resident memory of all processes in the leader's group; pages that they share count once for each."""
    page, total = os.sysconf("SC_PAGE_SIZE"), 0
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError):  # it ended while we looked
                if os.getpgid(int(entry.name)) == leader:
                    total += page * int(Path(entry.path, "statm").read_text().split()[1])
    return total


def _tail(text: str) -> str:
    lines = text.strip().splitlines()
    if not lines:
        return ""
    return "\nThe last lines that it printed:\n" + "\n".join(f"  {line[:300]}" for line in lines[-_TAIL_LINES:])


def _rebuilt(target: str, message: Mapping[str, Any], tail: str) -> GnomonError:
    known = {cls.__name__: cls for cls in _tree(GnomonError)}
    for name in message["classes"]:
        if name in known:
            outcome = message["outcome"]
            return known[name](message["text"], outcome=outcome if outcome in OUTCOMES else None)
    if message["out_of_memory"]:
        return NotRunnable(f"{target} ran out of memory: {message['text']}{tail}", outcome="out-of-memory")
    return CheckFailed(f"{target} failed:\n{message['traceback']}{tail}", outcome="error")


def _tree(cls: type[GnomonError]) -> Iterator[type[GnomonError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _tree(sub)


def _died(target: str, code: int | None, tail: str) -> GnomonError:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        if name == "SIGKILL":
            why = "most likely the system ran out of memory; try a smaller batch"
            text = f"the process of {target} was killed from outside (SIGKILL); {why}{tail}"
            return NotRunnable(text, outcome="child-died")
        return CheckFailed(f"the process of {target} crashed with {name}{tail}", outcome="child-died")
    text = f"the process of {target} ended with exit code {code} and no result{tail}"
    return CheckFailed(text, outcome="child-died")


# --- in the child -----------------------------------------------------------------------------------------------------

_send: Callable[[dict[str, Any]], None] | None = None  # set in the worker


def _supervise(request: str, speak: int, watched: int) -> None:
    """The leader of the group: forks the worker, ends as it ends, and takes the group along when the caller dies.

    It runs no code of others, so nothing can keep it from that; the worker could hold the interpreter lock for minutes,
    and could not kill its own children once it is killed itself.
    """
    for end in (speak, watched):
        os.set_inheritable(end, False)
    supervisor = os.getpid()
    worker = os.fork()
    if worker == 0:
        os.close(watched)
        _die_with(supervisor)
        _serve(request, speak)
        return
    os.close(speak)

    def watch() -> None:
        os.read(watched, 1)  # nothing is ever written: this returns when the caller is gone
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.disable()
        os.kill(supervisor, -code)  # the caller sees the signal, as if there were no supervisor
    os._exit(code)


def _die_with(supervisor: int) -> None:
    """End this process when the supervisor does (killed on its own). The kernel's signal waits for no interpreter."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the line above
        os._exit(1)


def _serve(request: str, speak: int) -> None:
    global _send
    faulthandler.enable(
        all_threads=False
    )  # a crash in native code leaves the Python stack among the last printed lines
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        data = json.dumps(message, allow_nan=False).encode() + b"\n"
        with lock:
            while data:
                data = data[os.write(speak, data) :]

    _send = send
    try:
        work = json.loads(Path(request).read_text())
        module, _, name = work["target"].partition(":")
        function = getattr(importlib.import_module(module), name)
        send({"result": function(work["arguments"])})
    except BaseException as error:  # also SystemExit: model code must not end us without a word
        send(_described(error))


def _described(error: BaseException) -> dict[str, Any]:
    classes = [cls.__name__ for cls in type(error).__mro__ if issubclass(cls, GnomonError)]
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()[-_TAIL_LINES:]
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return {
        "error": type(error).__name__,
        "classes": classes,
        "text": str(error),
        "traceback": "\n".join(f"  {line}" for line in lines),
        "outcome": outcome_of(error),
        "out_of_memory": memory or "can't allocate memory" in str(error),  # torch's CPU allocator: a RuntimeError
    }


if __name__ == "__main__":
    from gnomon.core import process  # the module that others import, not this second copy called __main__

    process._supervise(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
