"""Progress on standard error: a live line on a terminal, one line per stage elsewhere."""

import time
from types import TracebackType

from gnomon.cli._common import progress_console


class Progress:
    """Call it with what is going on. The time since the start stands before every line."""

    def __init__(self, title: str) -> None:
        self._console = progress_console()
        self._start = time.monotonic()
        self._status = self._console.status(title) if self._console.is_terminal else None
        self._last = title

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, message: str) -> None:
        line = f"[{time.monotonic() - self._start:5.1f} s] {message}"
        if self._status is None:
            self._console.print(line, highlight=False, markup=False)
        else:
            self._status.update(line)
