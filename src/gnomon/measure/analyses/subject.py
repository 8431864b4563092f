"""What analyses look at: the records of a stored run, or spans that another tool recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gnomon.core.errors import DamagedData
from gnomon.devices.device import Device
from gnomon.measure.record import Measurement, Span, Trace
from gnomon.measure.unique import UniqueOperators
from gnomon.workload.graph import OpGraph

NO_GRAPH = "no operator graph is stored, so FLOP and bytes are not known; --complete captures it"
NO_DEVICE = "no peaks of a device are stored; --complete measures this machine's, --device NAME takes a data sheet's"


@dataclass(frozen=True, slots=True)
class Subject:
    """One measured task, or one imported trace.

    measurement: the deepest of the run. measurements: all that A1 may put side by side, that one included. spans: of
    the measurement or of the trace. lacks: part -> why it is not there, where that is known.
    """

    name: str
    spans: tuple[Span, ...]
    measurement: Measurement | None = None
    measurements: tuple[Measurement, ...] = ()
    trace: Trace | None = None
    graph: OpGraph | None = None
    device: Device | None = None
    unique: UniqueOperators | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)

    def why_no(self, part: str, otherwise: str) -> str:
        """Why the part is missing, in words."""
        return self.lacks.get(part, otherwise)


def of_trace(trace: Trace, device: Device | None = None, graph: OpGraph | None = None) -> Subject:
    """The subject that a trace is on its own. Raises DamagedData when its spans are no trees."""
    _check(trace.spans, f"trace {trace.name!r}")
    return Subject(trace.name, trace.spans, trace=trace, device=device, graph=graph)


def of_measurements(
    measurements: Sequence[Measurement],
    graph: OpGraph | None = None,
    device: Device | None = None,
    unique: UniqueOperators | None = None,
    lacks: Mapping[str, str] | None = None,
) -> Subject:
    """The subject of one or more measurements; the one with most levels is looked into, the last of several.

    Raises ValueError for no measurements, DamagedData when spans are no trees.
    """
    if not measurements:
        raise ValueError("wanted at least one measurement")
    chosen = max(reversed(measurements), key=lambda m: len(m.levels))
    _check(chosen.spans, f"measurement of {chosen.task}")
    return Subject(
        chosen.task, chosen.spans, chosen, tuple(measurements), None, graph, device, unique, dict(lacks or {})
    )


def _check(spans: Sequence[Span], where: str) -> None:
    for index, span in enumerate(spans):
        if span.wall_s < 0:
            raise DamagedData(f"{where}: span {index} ({span.name}) lasts {span.wall_s} s; a span cannot be negative")
        if span.parent is not None and not 0 <= span.parent < len(spans):
            raise DamagedData(
                f"{where}: span {index} ({span.name}) names span {span.parent} as parent; there are {len(spans)}"
            )
    settled: set[int] = set()
    for index in range(len(spans)):
        path: list[int] = []
        here: int | None = index
        while here is not None and here not in settled:
            if here in path[-1:] or (len(path) > len(spans)):
                raise DamagedData(f"{where}: span {index} ({spans[index].name}) is its own ancestor; record it again")
            path.append(here)
            here = spans[here].parent
        settled.update(path)
