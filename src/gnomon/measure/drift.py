"""What a reader must know before believing times: drift within and between sessions, and calls that were disturbed."""

import math
from collections.abc import Sequence

from gnomon.core.drift import change_within, step, trend
from gnomon.core.stats import fast_half_mean, t_interval
from gnomon.measure.child import Clock, clocked
from gnomon.measure.record import Session

_P = 0.01  # one quiet measurement in a hundred is warned about
_LEAST = 0.01  # a smaller drift is real at times, and matters to nobody
_LEAST_SESSIONS = 5
_LEAST_CALLS = 8


def drift(sessions: Sequence[Session], clock: Clock) -> list[str]:
    """Warnings about times that change: from the first to the last call of a session, and from session to session.

    Within a session: the mean over sessions of each one's Theil-Sen change, as neighbouring calls are not independent
    and sessions are. Between sessions: a step or a trend, whichever is the surer (from 5 sessions on).
    """
    return [*_within(sessions, clock), *_between([fast_half_mean(clocked(s, clock)) for s in sessions], "sessions")]


def disturbances(sessions: Sequence[Session], clock: Clock, warmup_s: float) -> list[str]:
    """Warnings about sessions that never became steady, and about drift."""
    unstable = sum(not session.is_stable for session in sessions)
    found = []
    if unstable:
        found.append(
            f"{unstable} of {len(sessions)} sessions were still changing by more than 5 % after {warmup_s:g} s of "
            "warm-up"
        )
    return [*found, *drift(sessions, clock)]


def ratio_drift(a: Sequence[float], b: Sequence[float], name: str) -> list[str]:
    """A warning when the ratio itself changes from session to session, which interleaving does not cancel.

    a, b: one time per session of the baseline and of variant `name`.
    """
    ratios = [y / x for x, y in zip(a, b, strict=True)]
    return [f"{name} against the baseline: {text}" for text in _between(ratios, "ratios of sessions")]


def _within(sessions: Sequence[Session], clock: Clock) -> list[str]:
    changes = [change_within(clocked(s, clock)) for s in sessions if len(s.wall_s) >= _LEAST_CALLS]
    if len(changes) < 3:
        return []
    found = t_interval(changes, 1 - _P)
    if found.low is None or found.high is None or abs(found.value) < _LEAST or found.low <= 0 <= found.high:
        return []
    direction = "slower" if found.value > 0 else "faster"
    why = "does it heat up, or keep what it should release?" if found.value > 0 else "was the warm-up too short?"
    return [
        f"calls get {abs(found.value):.1%} {direction} from the first to the last of a session "
        f"[{found.low:+.1%}, {found.high:+.1%}]: {why}"
    ]


def _between(times: Sequence[float], what: str) -> list[str]:
    if len(times) < _LEAST_SESSIONS:
        return []
    logs = [math.log(time) for time in times]
    line, jump = trend(logs), step(logs)
    if jump.p < _P and jump.p <= line.p and abs(jump.change) >= _LEAST:
        change = math.expm1(jump.change)
        direction = "slower" if change > 0 else "faster"
        return [f"{what} {jump.at + 1}.. are {abs(change):.1%} {direction} than those before (p = {jump.p:.2g})"]
    change = math.expm1(line.slope * (len(times) - 1))
    if line.p < _P and abs(change) >= _LEAST:
        direction = "slower" if change > 0 else "faster"
        return [f"{what} get {abs(change):.1%} {direction} from the first to the last (trend, p = {line.p:.2g})"]
    return []
