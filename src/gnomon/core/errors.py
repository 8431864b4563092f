"""The error tree. Every error that a user can cause or mend is a `GnomonError` and carries the command's exit code.

It also carries its outcome: the name, out of a closed list, under which the store keeps how a run ended. The exit code
says what a script should do next, the outcome what happened.
"""

import difflib
import errno
from collections.abc import Iterable, Mapping

OUTCOMES: Mapping[str, str] = {
    "done": "ended as it should",
    "interrupted": "somebody stopped it",
    "killed": "the process that wrote it died without a word",
    "check-failed": "a check ran and did not hold",
    "bad-input": "the request was wrong: a name, an option, a file, a manifest",
    "unknown-version": "the input was written for a version that this Gnomon does not read",
    "not-runnable": "it cannot be done on this machine",
    "timed-out": "it took longer than its limit and was stopped",
    "out-of-memory": "it took more memory than it may, or than there is",
    "disk-full": "the disk had no room left",
    "child-died": "the process that measures crashed, was killed, or left without a result",
    "child-garbage": "what the process that measures sent back was no message",
    "clock-backwards": "a clock went backwards, so its times mean nothing",
    "zero-length": "the clock saw no time pass during a call",
    "truncated-trace": "a trace ends in the middle",
    "overlapping-spans": "two spans of one thread overlap, and neither holds the other",
    "damaged-data": "stored data is not what was written",
    "error": "an error that Gnomon has no name for, mostly of the task's own code",
}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class GnomonError(Exception):
    """Base of all errors with a message meant for the user: what was wanted, what came, what to do.

    outcome: one of OUTCOMES, where it is known better than the class does.
    """

    exit_code = 1
    outcome = "error"

    def __init__(self, *arguments: object, outcome: str | None = None) -> None:
        super().__init__(*arguments)
        if outcome is not None:
            if outcome not in OUTCOMES:
                raise ValueError(f"no outcome is called {outcome!r}.{did_you_mean(outcome, OUTCOMES)}")
            self.outcome = outcome


class CheckFailed(GnomonError):
    """A check ran and did not hold: a quality bound, a reproduction, a comparison."""

    exit_code = 1
    outcome = "check-failed"


class UsageError(GnomonError):
    """The request itself is wrong: an unknown name, an impossible option, a bad file."""

    exit_code = 2
    outcome = "bad-input"


class ManifestError(UsageError):
    """A manifest cannot be read or resolved; the message names the file and the key."""


class MissingReference(ManifestError):
    """A manifest refers to a manifest or a file that is not there."""


class VersionConflict(ManifestError):
    """No version of a manifest satisfies a constraint, or two different manifests claim one version."""


class ReferenceCycle(ManifestError):
    """Manifests that extend each other in a circle."""


class UnknownVersion(ManifestError):
    """A manifest is written in a version of the format that this Gnomon does not read."""

    outcome = "unknown-version"


class UnknownName(UsageError):
    """A name that is in no list; the message offers the nearest ones."""


class NotRunnable(GnomonError):
    """The request is right but cannot be carried out here: no GPU, too little memory, a package missing."""

    exit_code = 3
    outcome = "not-runnable"


class UnsatisfiedHardware(NotRunnable):
    """This machine does not have what a manifest asks of the hardware."""


class DamagedData(GnomonError):
    """Stored data cannot be trusted: a digest that differs, a truncated file, a record of an unknown version."""

    exit_code = 4
    outcome = "damaged-data"


def outcome_of(error: BaseException | None) -> str:
    """The outcome of a run that ended with `error`; None is 'done'."""
    if error is None:
        return "done"
    if isinstance(error, GnomonError):
        return error.outcome
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
        return "out-of-memory"
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return "disk-full"
    return "error"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest known name, or an empty string when none is near."""
    by_lower = {one.lower(): one for one in known}  # 'GELU' is near 'gelu'
    near = difflib.get_close_matches(name[:100].lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
