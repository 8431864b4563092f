"""Traces of other tools into the store."""

from pathlib import Path
from typing import TYPE_CHECKING

from gnomon.store.store import Run

if TYPE_CHECKING:
    from gnomon.measure.record import Trace


def import_trace(path: Path, run: Run, is_lenient: bool = False) -> "Trace":
    """Read a trace file and add it to a run. Raises UsageError and DamagedData as `measure.traces.read_trace` does.

    Inside `with store.begin(...) as run` a refused trace leaves a failed run whose outcome names the damage.
    """
    from gnomon.measure.traces.read import read_trace

    trace = read_trace(path, is_lenient)
    run.add(trace)
    return trace
