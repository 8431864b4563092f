"""The error tree. Every error that a user can cause or mend is a `GnomonError` and carries the command's exit code."""

import difflib
from collections.abc import Iterable


class GnomonError(Exception):
    """Base of all errors with a message meant for the user: what was wanted, what came, what to do."""

    exit_code = 1


class CheckFailed(GnomonError):
    """A check ran and did not hold: a quality bound, a reproduction, a comparison."""

    exit_code = 1


class UsageError(GnomonError):
    """The request itself is wrong: an unknown name, an impossible option, a bad file."""

    exit_code = 2


class ManifestError(UsageError):
    """A manifest cannot be read or resolved; the message names the file and the key."""


class UnknownName(UsageError):
    """A name that is in no list; the message offers the nearest ones."""


class NotRunnable(GnomonError):
    """The request is right but cannot be carried out here: no GPU, too little memory, a package missing."""

    exit_code = 3


class DamagedData(GnomonError):
    """Stored data cannot be trusted: a digest that differs, a truncated file, a record of an unknown version."""

    exit_code = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest known name, or an empty string when none is near."""
    by_lower = {one.lower(): one for one in known}  # 'GELU' is near 'gelu'
    near = difflib.get_close_matches(name[:100].lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
