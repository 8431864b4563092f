"""Who writes a run, precisely enough to tell later whether that process is still alive.

A process number alone is reused; number, start time and boot together are not.
"""

import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import NamedTuple

from gnomon.core.digest import digest


class Writer(NamedTuple):
    """A process. host: digest of the machine's identity and name (the name itself is nobody's business).

    boot: identity of the machine's last start and, behind a slash, of the table of process numbers (containers have
    their own). process_started: in the units of the platform, only ever compared for equality; '' when not known.
    """

    host: str
    boot: str
    pid: int
    process_started: str


def this_process() -> Writer:
    """The process that asks. Not cached: a forked child is another process."""
    host, boot = _machine()
    return Writer(host, boot, os.getpid(), _started(os.getpid()) or "")


def is_gone(writer: Writer, here: Writer) -> bool:
    """Whether `writer` is known, from `here`, to be dead. False also when that cannot be seen from here:
    another machine, or another container on this one.
    """
    if writer.host != here.host:
        return False
    boot, _, numbers = writer.boot.partition("/")
    boot_here, _, numbers_here = here.boot.partition("/")
    if boot != boot_here:
        return True  # the machine has been started anew since
    if numbers != numbers_here:
        return False
    started = _started(writer.pid)
    return started is None or (bool(writer.process_started) and started != writer.process_started)


@functools.cache
def _machine() -> tuple[str, str]:
    identity = _text("/etc/machine-id") or platform.platform()
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    boot = _text("/proc/sys/kernel/random/boot_id") or _output("sysctl", "-n", "kern.boottime")
    return digest([identity, platform.node()]).removeprefix("sha256:")[:16], f"{boot}/{numbers}"


def _started(pid: int) -> str | None:
    """When the process `pid` began; None when there is none, or only its unburied remains."""
    if Path("/proc/self/stat").exists():
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name before ')' may hold anything
        return fields[19] if fields and fields[0] not in "ZX" else None  # proc(5): fields 22 and 3
    return _output("ps", "-o", "lstart=", "-p", str(pid)) or None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
