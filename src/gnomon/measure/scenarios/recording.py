"""What was seen of a run under load: when each query was due, issued and completed. All judgements start from here."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gnomon.core.errors import CheckFailed

# limit: max_queries or max_duration_s was reached. hopeless: so many queries were late that the bound was lost
Ending = Literal["natural", "limit", "hopeless"]


@dataclass(frozen=True, slots=True)
class Recording:
    """Times in nanoseconds from the start of the run, one per query in the order of issue, as int64.

    scheduled: latency counts from here; for single- and multi-stream it is the time of issue. completed: when the last
    sample of the query was done. sample_latencies: one per sample, by the time that this sample was done.
    """

    scheduled: np.ndarray
    issued: np.ndarray
    completed: np.ndarray
    sample_latencies: np.ndarray
    ending: Ending = "natural"

    @property
    def latencies(self) -> np.ndarray:
        """Nanoseconds per query, in the order of issue."""
        return self.completed - self.scheduled

    @property
    def lag(self) -> np.ndarray:
        """Nanoseconds by which each query was issued late."""
        return self.issued - self.scheduled

    def check(self) -> None:
        """Raises CheckFailed when a clock went backwards, or when nothing was recorded."""
        if len(self.completed) == 0:
            raise CheckFailed("no query was completed, so there is nothing to judge", outcome="zero-length")
        steps = (self.lag, self.completed - self.issued, np.diff(self.issued), self.sample_latencies)
        worst = min(int(step.min()) for step in steps if len(step))
        if worst < 0:
            raise CheckFailed(
                f"the wall clock went backwards by {-worst} ns during the run; none of its latencies can be trusted. "
                "Is the machine being migrated or its time adjusted? Measure again",
                outcome="clock-backwards",
            )
