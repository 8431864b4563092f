"""Batches streamed through preprocess, run and postprocess in memory, as DLSpec asks (arXiv:2002.11262): no files.

Preprocessing of batch i + 1 overlaps with the run of batch i: it has a thread of its own and hands over through a queue
that is bounded, so a fast preprocess waits (back-pressure) and memory does not grow with the number of items. Run and
postprocess happen in the thread that asks for results, in order.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gnomon.core.errors import CheckFailed, GnomonError

StageName = Literal["preprocess", "run", "postprocess"]
STAGES: tuple[StageName, ...] = ("preprocess", "run", "postprocess")
Call = Callable[[Any], Any]
Observer = Callable[[StageName, int, int, int, int], None]
_SOURCE = "items"  # not a stage: what the items are drawn from


@dataclass(frozen=True, slots=True)
class StageTime:
    """What a stage took in sum over `items` items. cpu_s: of the thread that ran it alone."""

    items: int
    wall_s: float
    cpu_s: float


class Pipeline:
    """preprocess -> run -> postprocess over any number of items.

    Each stage is a callable of one batch that returns the next; None passes the batch on. queue: how many preprocessed
    batches may wait for the run; 0 does everything in the caller's thread, one after the other, without overlap.
    observer(stage, item, start_ns, end_ns, cpu_ns) is called after each stage of each item, by the thread that ran it
    (preprocess: the pipeline's own); start and end are those of `time.perf_counter_ns`, cpu that of the thread.
    """

    def __init__(
        self,
        preprocess: Call | None,
        run: Call,
        postprocess: Call | None,
        queue: int = 2,
        observer: Observer | None = None,
    ) -> None:
        if queue < 0:
            raise ValueError(f"a queue holds 0 batches or more; got {queue}")
        self._calls: dict[StageName, Call | None] = {"preprocess": preprocess, "run": run, "postprocess": postprocess}
        self._queue, self._observer = queue, observer
        self._sums: dict[StageName, list[int]] = {}

    @property
    def times(self) -> dict[StageName, StageTime]:
        """What each stage took in the last stream so far; a stage that does nothing is not in it."""
        return {stage: StageTime(n, wall * 1e-9, cpu * 1e-9) for stage, (n, wall, cpu) in self._sums.items()}

    def stream(self, items: Iterable[Any]) -> Generator[Any, None, None]:
        """The result of each item, in order, each as soon as it is there. Items are drawn only as they are needed.

        An exception in a stage, or in drawing an item, ends the stream after the results of the items before it. It
        comes as CheckFailed that names the stage and the item (counted from 0), or as the same class when it is a
        GnomonError. Leaving the stream early waits for the stage that is under way and ends the thread.
        """
        self._sums = {stage: [0, 0, 0] for stage, call in self._calls.items() if call is not None}
        drawn = self._preprocessed(items)
        if self._queue == 0 or self._calls["preprocess"] is None:  # nothing that could overlap
            yield from self._finished(drawn)
            return
        handover = _Handover(self._queue)
        thread = threading.Thread(target=handover.fill, args=(drawn,), name="gnomon-preprocess", daemon=True)
        thread.start()
        try:
            yield from self._finished(handover)
        finally:
            handover.close()
            thread.join()

    def _preprocessed(self, items: Iterable[Any]) -> Iterator[Any]:
        source, index = iter(items), 0
        while True:
            try:
                item = next(source)
            except StopIteration:
                return
            except Exception as error:
                raise _failed(_SOURCE, index, error) from error
            yield self._staged("preprocess", index, item)
            del item  # while the next one is drawn, this one is no longer ours
            index += 1

    def _finished(self, batches: Iterable[Any]) -> Iterator[Any]:
        for index, batch in enumerate(batches):
            yield self._staged("postprocess", index, self._staged("run", index, batch))
            del batch

    def _staged(self, stage: StageName, index: int, batch: Any) -> Any:
        call = self._calls[stage]
        if call is None:
            return batch
        cpu, start = time.thread_time_ns(), time.perf_counter_ns()
        try:
            result = call(batch)
        except Exception as error:
            raise _failed(stage, index, error) from error
        end, cpu = time.perf_counter_ns(), time.thread_time_ns() - cpu
        sums = self._sums[stage]
        sums[0] += 1
        sums[1] += end - start
        sums[2] += cpu
        if self._observer is not None:
            self._observer(stage, index, start, end, cpu)
        return result


def _failed(stage: str, index: int, error: Exception) -> GnomonError:
    if isinstance(error, GnomonError):
        return type(error)(f"stage {stage}, item {index}: {error}")
    return CheckFailed(f"stage {stage}, item {index}: {type(error).__name__}: {str(error)[:500]}")


class _End(NamedTuple):
    error: BaseException | None


class _Handover:
    """A bounded queue from one thread to another that either side may end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Any] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def fill(self, batches: Iterator[Any]) -> None:
        """Everything that the iterator gives, then how it ended. Runs in the thread of the giver."""
        end = _End(None)
        try:
            for batch in batches:
                if not self._put(batch):
                    return
                del batch
        except BaseException as error:  # the reader's thread is where it can be told
            end = _End(error)
        with self._changed:
            self._waiting.append(end)
            self._changed.notify()

    def _put(self, batch: Any) -> bool:
        with self._changed:
            while len(self._waiting) >= self._limit and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return False
            self._waiting.append(batch)
            self._changed.notify()
            return True

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                batch = self._waiting.popleft()
                self._changed.notify()
            if isinstance(batch, _End):
                if batch.error is not None:
                    raise batch.error
                return
            yield batch
            del batch

    def close(self) -> None:
        """Nothing more is wanted."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify()
