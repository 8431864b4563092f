"""What one session is: the work of a fresh child process, from the first import to the last timed call.

`times` and `levels` are called through `core.process`: plain JSON in and out. torch is imported inside the functions,
so that its import is timed.
"""

import importlib
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnomon.core.errors import GnomonError, NotRunnable, UsageError
from gnomon.core.process import JSON, progress
from gnomon.core.records import from_json, to_json
from gnomon.measure.clock import Clock
from gnomon.measure.record import Session
from gnomon.spec.task import Task

if TYPE_CHECKING:
    from gnomon.measure.levels.trace import Tracer
    from gnomon.measure.timing import Sample, Warmup
    from gnomon.workload.program import Program

_LEVELS = "gnomon.measure.levels."


@dataclass(frozen=True, slots=True)
class Started:
    """import_s: what imports took. synchronize: waits for the device, None for the CPU."""

    import_s: float
    synchronize: Callable[[], None] | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A variant after build, first call and warm-up."""

    program: "Program"
    build_s: float
    first_call_s: float
    digest: str
    warmup: "Warmup"


def times(arguments: JSON) -> JSON:
    """Time variants of a task, untraced, interleaved round by round in this process.

    arguments: task, variants [{name, prepare, options}], calls, budget_s (per variant), warmup_s (for all), seed.
    Returns {variants: [{name, session, digest, failure}], allocator}; one that fails has a failure and no session.
    """
    task: Task = from_json(arguments["task"], Task)
    return _timed(task, arguments, Clock(), start(task)).result


def levels(arguments: JSON) -> JSON:
    """Time one variant untraced, then trace it level by level: calls of their own for each, the shallower first.

    No tracer exists before the untraced calls are done, and none is in place but its own level's after that, so no
    level's times know of a deeper one. arguments: as for `times`, with one variant, and levels below 'model' and
    traced_calls. Returns what `times` returns, and levels: {level: {unavailable: reason}, or {session: of the traced
    calls, untraced: of the calls between them, summary: of the level's tracer}}.
    """
    task: Task = from_json(arguments["task"], Task)
    clock, started = Clock(), start(task)
    timed = _timed(task, arguments, clock, started)
    (ready,) = timed.ready.values()
    traced = {level: _traced(task, level, arguments, ready, clock, started) for level in arguments["levels"]}
    return {**timed.result, "levels": traced}


@dataclass(frozen=True, slots=True)
class _Timed:
    result: dict[str, JSON]
    ready: dict[str, _Ready]


def _timed(task: Task, arguments: JSON, clock: Clock, started: Started) -> _Timed:
    from gnomon.measure.outputs import refuse_nan
    from gnomon.measure.timing import Candidate, CandidateFailed, time_interleaved

    variants = arguments["variants"]
    ready: dict[str, _Ready] = {}
    failures: dict[str, str] = {}
    for variant in variants:
        progress(f"variant {variant['name']}")
        with _kept_apart(failures, variant["name"], alone=len(variants) == 1):
            ready[variant["name"]] = _ready(task, variant, arguments["warmup_s"] / len(variants), clock, started)
    progress("timing")
    samples: dict[str, list[Sample]] = {}
    while ready and not samples:
        candidates = [Candidate(name, r.program.step, r.warmup.repeat) for name, r in ready.items()]
        try:
            budget_s = arguments["budget_s"] * len(candidates)
            timed = time_interleaved(
                candidates, clock, arguments["calls"], budget_s, arguments["seed"], started.synchronize
            )
            samples = dict(zip(ready, timed, strict=True))
        except CandidateFailed as failed:  # start again without it: its neighbours' times must not miss a partner
            with _kept_apart(failures, failed.name, alone=len(variants) == 1):
                raise failed.error from failed
            del ready[failed.name]
    for name in list(ready):
        with _kept_apart(failures, name, alone=len(variants) == 1):
            refuse_nan(ready[name].program.step(), name)  # after training steps the first check is old
    results = []
    for variant in variants:
        name = variant["name"]
        result: dict[str, JSON] = {"name": name, "failure": failures.get(name), "session": None, "digest": None}
        if name not in failures:
            session = _session(samples[name], ready[name], started.import_s)
            result |= {"session": to_json(session), "digest": ready[name].digest}
        results.append(result)
    return _Timed({"variants": results, "allocator": _allocator()}, ready)


def _traced(task: Task, name: str, arguments: JSON, ready: _Ready, clock: Clock, started: Started) -> JSON:
    """One level of one variant, its traced calls interleaved with untraced ones of the same program."""
    from gnomon.measure.levels.trace import median_call, typical
    from gnomon.measure.timing import Candidate, CandidateFailed, time_interleaved

    level = importlib.import_module(_LEVELS + name)
    reason = level.why_not(ready.program)
    if reason is not None:
        return {"unavailable": reason}
    progress(f"{name} level")
    tracer: Tracer = level.tracer(ready.program, clock, started.synchronize)
    candidates = [
        Candidate("untraced", tracer.plain),
        Candidate("traced", tracer.step, scope=tracer.scope),
    ]
    calls, budget_s = arguments["traced_calls"] * tracer.rounds, 2 * arguments["budget_s"]
    try:
        untraced, traced = time_interleaved(candidates, clock, calls, budget_s, arguments["seed"], started.synchronize)
    except CandidateFailed as failed:
        raise failed.error from failed
    summary = level.summary(tracer, typical(traced), median_call(traced), clock, task.name)
    return {
        "session": to_json(_session(traced, ready, started.import_s)),
        "untraced": to_json(_session(untraced, ready, started.import_s)),
        "summary": to_json(summary),
    }


def start(task: Task) -> Started:
    """Everything that comes before the program: the device is there, libraries are imported, threads are set."""
    start = time.perf_counter()
    import torch

    synchronize = _synchronizer(task.device)
    from gnomon.workload import program  # noqa: F401 - imported for its time

    if task.model.source == "huggingface":
        transformers = importlib.import_module("transformers")
        getattr(transformers, task.model.target, None)  # it imports a model's code when asked for it
    import_s = time.perf_counter() - start
    torch.set_num_threads(task.threads)
    if task.deterministic:  # asking for the default would import Inductor, over a second of CPU time
        torch.use_deterministic_algorithms(True)
    if synchronize is not None:
        torch.set_float32_matmul_precision("high" if task.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = task.tf32
    return Started(import_s, synchronize)


def _synchronizer(device: str) -> Callable[[], None] | None:
    """What waits for the device, None for the CPU. Raises NotRunnable when the device is not there."""
    import torch

    kind = device.partition(":")[0]
    if kind == "cpu":
        return None
    if kind != "cuda":
        raise UsageError(f"a task runs on 'cpu' or on 'cuda:<index>'; got device {device!r}")
    if not torch.cuda.is_available():
        raise NotRunnable(
            f"the task wants device {device!r}, and torch {torch.__version__} sees no CUDA device here. Run it on a "
            "machine with one, or set hardware.device to 'cpu'"
        )
    index = torch.device(device).index or 0
    if index >= torch.cuda.device_count():
        raise NotRunnable(
            f"the task wants device {device!r}; this machine has {torch.cuda.device_count()} CUDA device(s)"
        )
    return lambda: torch.cuda.synchronize(index)


def _ready(task: Task, variant: Mapping[str, Any], warmup_s: float, clock: Clock, started: Started) -> _Ready:
    from gnomon.measure.outputs import outputs_digest, refuse_nan
    from gnomon.measure.timing import warm_up
    from gnomon.workload import program as workload
    from gnomon.workload.application import check_outputs

    begin = clock.wall_ns()
    program = workload.build(task, device=task.device)
    if variant["prepare"] is not None:
        program = _preparer(variant["prepare"])(program, variant["options"])
    built = clock.wall_ns()
    outputs = program.step()
    if started.synchronize is not None:
        started.synchronize()
    called = clock.wall_ns()
    refuse_nan(outputs, variant["name"])
    if task.mode == "inference" and variant["prepare"] is None:  # a recipe may answer in another dtype
        check_outputs(task, outputs)
    digest = outputs_digest(outputs)
    del outputs
    warmup = warm_up(program.step, clock, warmup_s, started.synchronize)
    return _Ready(program, (built - begin) * 1e-9, (called - built) * 1e-9, digest, warmup)


def _preparer(target: str) -> Callable[[Any, Mapping[str, Any]], Any]:
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name, None) if name else None
    if function is None:
        raise UsageError(f"a variant is prepared by 'module:function'; there is no {target!r}")
    prepare: Callable[[Any, Mapping[str, Any]], Any] = function
    return prepare


def _session(samples: "list[Sample]", ready: _Ready, import_s: float) -> Session:
    return Session(
        wall_s=tuple(sample.wall_ns * 1e-9 for sample in samples),
        cpu_s=tuple(sample.cpu_ns * 1e-9 for sample in samples),
        page_faults=tuple(sample.page_faults for sample in samples),
        warmup_calls=ready.warmup.calls,
        is_stable=ready.warmup.is_stable,
        import_s=import_s,
        build_s=ready.build_s,
        first_call_s=ready.first_call_s,
        peak_rss_bytes=peak_rss_bytes(),
    )


def peak_rss_bytes() -> int:
    """Largest resident memory that this process has had.

    VmHWM where there is one: getrusage's ru_maxrss starts at the size of the parent at the fork.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _kept_apart(failures: dict[str, str], name: str, alone: bool) -> Iterator[None]:
    """A variant's error becomes its recorded failure, so that the others get their times; one on its own raises."""
    try:
        yield
    except Exception as error:
        if alone:
            raise
        failures[name] = _one_line(error)


def _one_line(error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, GnomonError):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text[:500]} ({Path(last.filename).name}:{last.lineno})"


def _allocator() -> str:
    from gnomon.measure.doctor import allocator_regime

    return allocator_regime()
