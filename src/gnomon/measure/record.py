"""What a measurement is, as stored. No torch here: the report reads these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gnomon.core.records import record
from gnomon.core.stats import Interval, RatioTest

SpanLevel = Literal["application", "model", "layer", "operator", "kernel"]
Level = Literal["application", "model", "layer", "operator", "kernel", "hardware"]
SPAN_LEVELS: tuple[SpanLevel, ...] = ("application", "model", "layer", "operator", "kernel")
LEVELS: tuple[Level, ...] = (*SPAN_LEVELS, "hardware")  # what a run can look at; hardware counts and has no spans


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in one call. start_s counts from the start of the call; parent is an index into the spans.

    cpu_s: CPU time of the thread that ran it, None where only wall time is known. attributes: shapes, module path ...
    """

    name: str
    level: SpanLevel
    start_s: float
    wall_s: float
    cpu_s: float | None
    parent: int | None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Session:
    """One fresh process: the calls that were timed after warm-up, and what happened before.

    wall_s, cpu_s (process CPU time), page_faults: one number per call. import_s, build_s, first_call_s: cold start.
    """

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    page_faults: tuple[int, ...]
    warmup_calls: int
    is_stable: bool
    import_s: float
    build_s: float
    first_call_s: float
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True)
class LevelRun:
    """The sessions that traced down to `level` and no deeper. Times of a level are read from its own run only.

    overhead: how much longer a call took than in the untraced run, as a fraction of it; None for the model level.
    taken_out: how much of that is the calibrated cost of this level's tracer, which its times are rid of; the rest is
    what tracing does to caches, and stays in them. None where nothing is taken out.
    """

    level: Level
    sessions: tuple[Session, ...]
    overhead: Interval | None
    taken_out: Interval | None = None


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One module: inclusive and self CPU time per call in seconds, from the layer level's run, overhead subtracted."""

    path: str
    type: str
    calls: int
    wall_s: float
    cpu_s: float
    self_cpu_s: float
    output_shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """All calls of one operator with the same shapes in the same module, per step, from the operator level's run."""

    name: str
    module: str
    shapes: tuple[tuple[int, ...], ...]
    calls: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of the application, from its own run: what a user waits for beside the model.

    kind 'start': once per process (import, build, first call). kind 'call': once per call (preprocess, model ...).
    wall_s: seconds with an interval over sessions, medians per session. cpu_s: None where it was not read.
    """

    name: str
    kind: Literal["start", "call"]
    wall_s: Interval
    cpu_s: Interval | None = None


@dataclass(frozen=True, slots=True)
class Counter:
    """One hardware or system counter over one call, read in a run of its own. Not available is an answer, never zero.

    value: events per call with an interval over sessions (nanoseconds for 'task-clock'), None with the reason in
    `unavailable`. source: 'perf' (perf_event_open) or 'valgrind'. running: least share of the time that it was really
    counting; below 1 the value is scaled up from that share. note: what the number does not say.
    """

    name: str
    source: Literal["perf", "valgrind"]
    value: Interval | None
    running: float | None = None
    unavailable: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and with what a number was taken."""

    machine: Mapping[str, Any]
    python: str
    packages: Mapping[str, str]
    threads: int
    allocator: str
    device: str
    started_at: str


@record("measurement", 1)
@dataclass(frozen=True, slots=True)
class Measurement:
    """A task measured at several levels.

    latency: 'p50', 'p90', 'p99', 'mean', 'trimmed_mean' of wall seconds per call of the untraced run, with intervals.
    operators_cover: sum of operator CPU times over the model's CPU time, from the operator run; the rest is `rest`.
    levels: the untraced model run first, then the others from shallow to deep. spans: one call, the levels' runs merged
    (see `measure.merge`). stages: of the application level. counters: of the hardware level and valgrind.
    """

    task: str
    task_digest: str
    variant: str
    mode: str
    batch: int
    dims: Mapping[str, int]
    latency: Mapping[str, Interval]
    cpu_latency: Mapping[str, Interval]
    throughput_per_s: float
    levels: tuple[LevelRun, ...]
    layers: tuple[LayerTime, ...]
    operators: tuple[OperatorTime, ...]
    operators_cover: float | None
    rest: str
    spans: tuple[Span, ...]
    output_digest: str
    environment: Environment
    warnings: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    counters: tuple[Counter, ...] = ()


@record("trace", 1)
@dataclass(frozen=True, slots=True)
class Trace:
    """Spans that another tool recorded, put into our levels.

    origin: the format that they came in ('chrome', 'otlp'). metadata: what the file says of where it was taken.
    warnings: what could not be mapped.
    """

    name: str
    origin: str
    spans: tuple[Span, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VariantTimes:
    """One variant inside a comparison: its sessions, and its outputs' digest in the first of them."""

    name: str
    sessions: tuple[Session, ...]
    failure: str | None = None
    output_digest: str | None = None


@record("comparison", 1)
@dataclass(frozen=True, slots=True)
class Comparison:
    """Variants of a task, or several tasks, timed interleaved. ratios[name]: baseline time over that variant's.

    statistic: what a session's calls become before sessions are compared: their median, or the mean of the faster half.
    pairs: 'calls' when all variants took turns in the same processes, 'sessions' when each had processes of its own
    that took turns. looks: the numbers of sessions after which the comparison could have ended; () when the number was
    fixed. tasks: variant -> digest of its task, where they are different tasks.
    """

    task: str
    task_digest: str
    baseline: str
    clock: Literal["wall", "cpu"]
    variants: tuple[VariantTimes, ...]
    ratios: Mapping[str, RatioTest]
    environment: Environment
    statistic: Literal["median", "fast half"] = "median"
    pairs: Literal["calls", "sessions"] = "calls"
    looks: tuple[int, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
