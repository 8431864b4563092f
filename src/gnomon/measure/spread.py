"""How far a measurement agrees with itself: its own ground truth has a peak beyond which nobody can be scored.

After "Approaching Peak Ground Truth" (Kofler et al. 2023, arXiv 2301.00243), with sessions for raters: repeats within a
session are intra-rater, sessions are inter-rater. A forecast that knew the true mean over all sessions would still miss
the mean of the sessions that were measured; an error below that says nothing about the forecast.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.core.stats import Interval, fast_half_mean, sd_interval
from gnomon.measure.child import Clock, clocked
from gnomon.measure.record import Measurement, Session

_MEAN_ERROR = math.sqrt(2 / math.pi)  # mean of |x| over the standard deviation of x, where x is normal


@dataclass(frozen=True, slots=True)
class Spread:
    """Relative standard deviations of a session's time.

    within: what repeats inside a session leave uncertain about its time (from its odd against its even calls); None
    where sessions have a single call. between: what sessions differ by; unbounded with a single session.
    floor: the mean absolute error at which a perfect forecast is scored against the mean of these sessions; None with
    one. one_session: the same against a session on its own, which is what a user who measures once sees.
    """

    sessions: int
    clock: Clock
    within: float | None
    between: Interval
    floor: float | None
    one_session: float | None


def spread(sessions: Sequence[Session], clock: Clock) -> Spread:
    """The spread of untraced sessions. Raises ValueError for no sessions and for a time that is not positive."""
    calls = [clocked(session, clock) for session in sessions]
    halves = [math.log(fast_half_mean(c[::2]) / fast_half_mean(c[1::2])) for c in calls if len(c) > 1]
    # var(log odd - log even) is twice that of one half, and a half's is twice that of the whole
    within = math.sqrt(sum(h**2 for h in halves) / len(halves)) / 2 if halves else None
    return of_times([fast_half_mean(c) for c in calls], clock, within)


def of_times(times: Sequence[float], clock: Clock, within: float | None = None) -> Spread:
    """The same from one time per session. Raises ValueError for no times and for one that is not positive."""
    if not times or min(times) <= 0:
        raise ValueError(f"wanted the positive time of at least one session; got {list(times)}")
    between = sd_interval([math.log(time) for time in times])
    if len(times) == 1:
        return Spread(1, clock, within, between, None, None)
    alone = _MEAN_ERROR * between.value
    return Spread(len(times), clock, within, between, alone / math.sqrt(len(times)), alone)


def of_measurement(measurement: Measurement) -> Spread:
    """The spread of a measurement's untraced sessions, in CPU time where it ran on a CPU."""
    clock: Clock = "cpu" if measurement.environment.device == "cpu" else "wall"
    return spread(measurement.levels[0].sessions, clock)
