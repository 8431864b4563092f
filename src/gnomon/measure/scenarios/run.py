"""Put a live system under load: issue queries as a scenario says, and record when each was due, issued and done.

Follows LoadGen: single- and multi-stream issue the next query when the last is done; server issues at Poisson arrivals
whatever the system does, and latency counts from the arrival; offline issues everything at once.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from gnomon.core.errors import CheckFailed, GnomonError, NotRunnable
from gnomon.core.units import format_seconds
from gnomon.measure.clock import Clock, elapsed
from gnomon.measure.scenarios.arrivals import SampleOrder, poisson_ns
from gnomon.measure.scenarios.early_stopping import over_latency_budget
from gnomon.measure.scenarios.recording import Ending, Recording
from gnomon.measure.scenarios.verdict import bound_ns, offline_samples
from gnomon.spec.task import Scenario


class Query(NamedTuple):
    """id: counts from 0 in the order of issue. samples: indices of the samples that are loaded."""

    id: int
    samples: tuple[int, ...]


class Report(Protocol):
    """What a system is given to say how a query went. Both may be called from any thread."""

    def done(self, query_id: int, samples: int | None = None) -> None:
        """`samples` more samples of the query are done; None means all the rest."""

    def failed(self, query_id: int, error: BaseException) -> None:
        """The query will never be done; the run ends with this error."""


class System(Protocol):
    """A system under test. `issue` may work through the query at once, or take it and report later."""

    def issue(self, query: Query, report: Report) -> None:
        """Take one query."""

    def cancel(self) -> None:
        """Forget the queries that have not been begun; the run is over."""


def run(
    scenario: Scenario,
    system: System,
    samples: int,
    *,
    name: str = "system",
    clock: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
    timeout_s: float = 60.0,
    give_up: bool = False,
) -> Recording:
    """Run one inference scenario on `system`.

    samples: how many are loaded, so queries hold indices below it. name: of the system in messages. timeout_s: how long
    to wait for a completion when nothing is left to issue. give_up: server only: end the run as soon as more queries
    are late than its early-stopping verdict can bear.

    Raises CheckFailed when the system fails, completes a query twice or one that it was never given, or when the clock
    goes backwards; NotRunnable when a query is never completed; ValueError for no samples, or a training scenario.
    """
    if scenario.name == "training-steps":
        raise ValueError("training steps are run by scenarios.training, not by a load generator")
    if samples < 1:
        raise ValueError(f"no samples: wanted at least 1 to draw queries from, got {samples}")
    clock = clock or Clock()
    bound = bound_ns(scenario) if scenario.name == "server" else None
    ledger = _Ledger(clock, name, bound)
    load = _Load(scenario, system, samples, ledger, clock, sleep, timeout_s, give_up)
    issue = {"server": load.server, "offline": load.offline}.get(scenario.name, load.streams)
    try:
        ending = issue()
        if ending == "hopeless":
            system.cancel()
        else:
            ledger.wait(timeout_s)
    except BaseException:
        system.cancel()
        raise
    recording = ledger.recording(load.start, ending)
    recording.check()
    return recording


class _Load:
    """Issues the queries of a scenario."""

    def __init__(
        self,
        scenario: Scenario,
        system: System,
        samples: int,
        ledger: "_Ledger",
        clock: Clock,
        sleep: Callable[[float], None],
        timeout_s: float,
        give_up: bool,
    ) -> None:
        self._scenario, self._system, self._ledger = scenario, system, ledger
        self._samples, self._order = samples, SampleOrder(samples, scenario.seed)
        self._now, self._sleep, self._timeout_s, self._give_up = clock.wall_ns, sleep, timeout_s, give_up
        self._least_ns = round(scenario.min_duration_s * 1e9)
        self._most_ns = None if scenario.max_duration_s is None else round(scenario.max_duration_s * 1e9)
        self.start = 0

    def streams(self) -> Ending:
        """One query at a time, of one sample or of several that follow each other."""
        scenario, size = self._scenario, self._scenario.query_samples
        draw = self._order.contiguous if scenario.name == "multi-stream" else self._order.draw
        self.start = self._now()
        issued = 0
        while True:
            query = Query(issued, draw(size))
            self._ledger.wait(self._timeout_s)
            now = self._now()
            self._issue(query, now, now)
            issued += 1
            lasted = elapsed(self.start, now, "wall")
            if issued >= scenario.min_queries and lasted >= self._least_ns:
                return "natural"
            if self._is_over(issued, lasted):
                return "limit"

    def server(self) -> Ending:
        """Queries at their arrival times; the next one waits for nothing."""
        scenario, ledger = self._scenario, self._ledger
        assert scenario.target_qps is not None  # the record's own check
        arrivals = poisson_ns(scenario.target_qps, scenario.min_queries, scenario.min_duration_s, scenario.seed)
        queries = [Query(i, self._order.draw(scenario.query_samples)) for i in range(len(arrivals))]
        budget = over_latency_budget(len(arrivals), scenario.bound_percentile, scenario.confidence)
        most_late = len(arrivals) if budget is None or not self._give_up else budget
        self.start = self._now()
        for query, after in zip(queries, arrivals.tolist(), strict=True):
            due = self.start + after
            while (now := self._now()) < due:
                self._sleep((due - now) * 1e-9)
            self._issue(query, due, now)
            if ledger.late > most_late:
                return "hopeless"
            if self._is_over(query.id + 1, elapsed(self.start, now, "wall")) and query.id + 1 < len(queries):
                return "limit"
        while self._give_up and ledger.is_open():
            if ledger.late > most_late:
                return "hopeless"
            ledger.wait_for_one(self._timeout_s)
        return "natural"

    def offline(self) -> Ending:
        """All samples in one query: each loaded one in turn, round and round."""
        size = offline_samples(self._scenario, self._samples)
        query = Query(0, tuple(i % self._samples for i in range(size)))
        self.start = self._now()
        self._issue(query, self.start, self._now())
        return "natural"

    def _issue(self, query: Query, due_ns: int, now_ns: int) -> None:
        ledger = self._ledger
        ledger.open(query, due_ns, now_ns)
        try:
            self._system.issue(query, ledger)
        except Exception as error:
            ledger.failed(query.id, error)
        ledger.raise_fault()

    def _is_over(self, issued: int, lasted_ns: int) -> bool:
        most = self._scenario.max_queries
        return (most is not None and issued >= most) or (self._most_ns is not None and lasted_ns > self._most_ns)


class _Open(NamedTuple):
    due_ns: int
    samples_left: int


class _Ledger:
    """Which queries are open, and when the others were done. A lock guards it: systems report from their threads."""

    def __init__(self, clock: Clock, name: str, bound_ns: int | None) -> None:
        self._now, self._name, self._bound_ns = clock.wall_ns, name, bound_ns
        self._changed = threading.Condition()
        self._open: dict[int, _Open] = {}
        self._issued: list[tuple[int, int]] = []  # due, issued; position is the query's id
        self._done: list[tuple[int, int, int]] = []  # query, time, samples
        self._fault: GnomonError | None = None
        self.late = 0

    def open(self, query: Query, due_ns: int, now_ns: int) -> None:
        with self._changed:
            self._open[query.id] = _Open(due_ns, len(query.samples))
            self._issued.append((due_ns, now_ns))

    def is_open(self) -> bool:
        """Whether a query is still to be done."""
        return bool(self._open)

    def done(self, query_id: int, samples: int | None = None) -> None:
        now = self._now()
        with self._changed:
            one = self._open.get(query_id)
            count = one.samples_left if one is not None and samples is None else samples
            if one is None or count is None or not 0 < count <= one.samples_left:
                self._fault = self._fault or self._wrong(query_id, one, count)
                self._changed.notify_all()
                return
            self._done.append((query_id, now, count))
            if count < one.samples_left:
                self._open[query_id] = _Open(one.due_ns, one.samples_left - count)
                return
            del self._open[query_id]
            if self._bound_ns is not None and now - one.due_ns > self._bound_ns:
                self.late += 1
            self._changed.notify_all()

    def failed(self, query_id: int, error: BaseException) -> None:
        with self._changed:
            if self._fault is None:
                if isinstance(error, GnomonError):
                    self._fault = error
                else:
                    self._fault = CheckFailed(
                        f"{self._name} failed on query {query_id} with {type(error).__name__}: {str(error)[:500]}"
                    )
                    self._fault.__cause__ = error
            self._changed.notify_all()

    def raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def wait(self, timeout_s: float) -> None:
        """Until no query is open. Raises NotRunnable when nothing is completed for `timeout_s`."""
        while self._open and self._fault is None:
            self.wait_for_one(timeout_s)
        self.raise_fault()

    def wait_for_one(self, timeout_s: float) -> None:
        """Until one more completion, or none is open."""
        with self._changed:
            before = len(self._done)
            if not self._changed.wait_for(
                lambda: self._fault is not None or not self._open or len(self._done) > before, timeout_s
            ):
                oldest = next(iter(self._open))
                raise NotRunnable(
                    f"{self._name} did not complete query {oldest} ({len(self._open)} are open): no completion for "
                    f"{format_seconds(timeout_s)}. Does it report each query once? A slow one needs a longer timeout",
                    outcome="timed-out",
                )
        self.raise_fault()

    def recording(self, start_ns: int, ending: Ending) -> Recording:
        with self._changed:
            count, still_open, done = len(self._issued), set(self._open), list(self._done)
            times = np.array(self._issued, dtype=np.int64).reshape(-1, 2) - start_ns
        completed = np.zeros(count, dtype=np.int64)
        ids = np.array([query for query, _, _ in done], dtype=np.int64)
        at = np.array([time_ns for _, time_ns, _ in done], dtype=np.int64) - start_ns
        np.maximum.at(completed, ids, at)
        kept = np.ones(count, dtype=bool)
        kept[list(still_open)] = False
        counts = np.array([samples for _, _, samples in done], dtype=np.int64)
        whole = kept[ids] if len(ids) else np.zeros(0, dtype=bool)
        order = np.argsort(ids[whole], kind="stable")
        latencies = np.repeat((at[whole] - times[ids[whole], 0])[order], counts[whole][order])
        return Recording(times[kept, 0], times[kept, 1], completed[kept], latencies, ending)

    def _wrong(self, query_id: int, one: _Open | None, count: int | None) -> CheckFailed:
        if one is None and 0 <= query_id < len(self._issued):
            return CheckFailed(f"{self._name} completed query {query_id} twice; each query is reported done once")
        if one is None:
            return CheckFailed(
                f"{self._name} completed query {query_id}, which it was never given; the last one was "
                f"{len(self._issued) - 1}"
            )
        return CheckFailed(
            f"{self._name} reported {count} samples of query {query_id} done; {one.samples_left} were left of it"
        )
