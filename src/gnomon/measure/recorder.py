"""A recorder of spans for hot loops: `begin` and `end` append to one flat list, everything else comes after the run.

A span costs two readings of the clock and little more; `benchmarks/spans.py` measures it beside a span of the
OpenTelemetry SDK. The list holds text and whole numbers only, so the garbage collector has nothing to follow in it, and
appending was measured to be faster than storing into a list made long enough beforehand.
"""

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from gnomon.core.errors import CheckFailed
from gnomon.measure.record import Span, SpanLevel


class Recorder:
    """Spans of one thread, nested as they began. Each thread needs a recorder of its own.

    In a hot loop call `begin(name)` and `end()`; elsewhere `with recorder.span(name):` is safer and costs more.
    begin and end are attributes and not methods, so that a loop can hold them: `begin, end = recorder.begin, ...`.
    """

    __slots__ = ("_events", "_origin_ns", "begin", "end")

    begin: Callable[[str], None]
    end: Callable[[], None]

    def __init__(self, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._events: list[str | int] = []  # begin: a name, then a time; end: a time alone
        append = self._events.append

        def begin(name: str) -> None:
            append(name)
            append(clock_ns())

        def end() -> None:
            append(clock_ns())

        self.begin, self.end = begin, end
        self._origin_ns = clock_ns()

    def span(self, name: str) -> "_Scope":
        """A span around the body of a `with` statement; it ends when the body raises, too."""
        return _Scope(self, name)

    def clear(self) -> None:
        """Forget what was recorded."""
        self._events.clear()

    def spans(
        self,
        levels: Mapping[str, SpanLevel] | None = None,
        level: SpanLevel = "application",
        origin_ns: int | None = None,
    ) -> tuple[Span, ...]:
        """All spans in the order in which they began, with their parents. levels: by name; `level` for all others.

        start_s counts from `origin_ns` of the recorder's clock (default: when the recorder was made). Raises
        CheckFailed when a span has no end, an end no span, or the clock went backwards.
        """
        origin = self._origin_ns if origin_ns is None else origin_ns
        begun: list[tuple[str, int, int | None]] = []
        ended: list[int] = []
        stack: list[int] = []
        last, name = origin if origin_ns is None else 0, None
        for event in self._events:
            if isinstance(event, str):
                name = event
                continue
            if event < last:
                raise CheckFailed(
                    f"the clock went backwards by {last - event} ns while spans were recorded; none of them can be "
                    "trusted. Is the machine being migrated or its time adjusted? Record again",
                    outcome="clock-backwards",
                )
            last = event
            if name is not None:
                begun.append((name, event, stack[-1] if stack else None))
                ended.append(event)
                stack.append(len(begun) - 1)
                name = None
            elif stack:
                ended[stack.pop()] = event
            else:
                raise CheckFailed(f"end() was called without a span that has begun, after {len(begun)} spans")
        if stack:
            raise CheckFailed(f"{len(stack)} spans never ended, the innermost is {begun[stack[-1]][0]!r}")
        known = levels or {}
        return tuple(
            Span(name, known.get(name, level), (start - origin) * 1e-9, (end - start) * 1e-9, None, parent)
            for (name, start, parent), end in zip(begun, ended, strict=True)
        )


class _Scope:
    __slots__ = ("_name", "_recorder")

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name

    def __enter__(self) -> None:
        self._recorder.begin(self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.end()
