"""The manifests whose inline code a user has agreed to run: a list of digests in the Gnomon home, nothing else.

A digest covers every value of a manifest, the code included, so agreement ends with the first change. There is no list
of forbidden code: what is not on this list is refused.
"""

import re
from pathlib import Path

from gnomon.core import paths
from gnomon.core.errors import DamagedData, UsageError

_LINE = re.compile(r"(sha256:[0-9a-f]{64})(?: +(.*))?")


def trust_file() -> Path:
    """The list: a line for each manifest, 'sha256:... what it was'."""
    return paths.home() / "trusted-manifests.txt"


def trusted() -> dict[str, str]:
    """Digest -> what it was when it was added. Raises DamagedData for a line that is none."""
    path = trust_file()
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedData(f"{path}: the trust list cannot be read: {error}") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DamagedData(f"{path}:{number}: wanted 'sha256:<64 digits> name', got {line[:80]!r}")
        found[match[1]] = match[2] or ""
    return found


def is_trusted(digest: str) -> bool:
    """Is the manifest with this digest on the list?"""
    return digest in trusted()


def add(digest: str, what: str) -> None:
    """Put a manifest on the list."""
    _write({**trusted(), digest: " ".join(what.split())})


def remove(digest: str) -> None:
    """Take a manifest off the list. Raises UsageError when it is not on it."""
    known = trusted()
    if digest not in known:
        raise UsageError(f"{digest} is not on the trust list ({trust_file()})")
    _write({key: value for key, value in known.items() if key != digest})


def _write(entries: dict[str, str]) -> None:
    path = trust_file()
    beside = path.with_suffix(".new")
    try:
        beside.write_text("".join(f"{digest} {what}".rstrip() + "\n" for digest, what in entries.items()), "utf-8")
        beside.replace(path)  # a reader sees the old list or the new one, never half of one
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
