"""Two ways to make a system under test of a function: call it on the issuing thread, or behind a queue."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from gnomon.measure.scenarios.run import Query, Report

# Works through some samples, given by their indices.
Work = Callable[[tuple[int, ...]], object]


class Serial:
    """Works through each query on the issuing thread. batch: at most so many samples at a time; None means all."""

    def __init__(self, work: Work, batch: int | None = None) -> None:
        self._work, self._batch = work, batch

    def issue(self, query: Query, report: Report) -> None:
        """Work through the query, and report each batch of it done."""
        size = self._batch or len(query.samples)
        for start in range(0, len(query.samples), size):
            part = query.samples[start : start + size]
            self._work(part)
            report.done(query.id, len(part))

    def cancel(self) -> None:
        """Nothing waits here."""


class Queued:
    """Takes queries at once and works through them in order of arrival on `threads` threads of its own.

    Used as a context manager, which ends the threads. Raises ValueError for no threads.
    """

    def __init__(self, work: Work, threads: int = 1, batch: int | None = None) -> None:
        if threads < 1:
            raise ValueError(f"threads: wanted at least 1, got {threads}")
        self._serial = Serial(work, batch)
        self._waiting: queue.SimpleQueue[tuple[Query, Report] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(threads)]

    def __enter__(self) -> "Queued":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        for _ in self._threads:
            self._waiting.put(None)
        if kind is None:  # a system that hangs must not keep its error from the caller
            for thread in self._threads:
                thread.join()

    def issue(self, query: Query, report: Report) -> None:
        """Put the query at the end of the queue."""
        self._waiting.put((query, report))

    def cancel(self) -> None:
        """Drop what waits in the queue."""
        while True:
            try:
                self._waiting.get_nowait()
            except queue.Empty:
                return

    def _serve(self) -> None:
        while (item := self._waiting.get()) is not None:
            query, report = item
            try:
                self._serial.issue(query, report)
            except Exception as error:
                report.failed(query.id, error)
