"""The whole job: measure here, forecast elsewhere, sharpen, report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnomon._version import __version__
from gnomon.core.errors import DamagedData
from gnomon.devices import catalogue
from gnomon.devices.device import Device
from gnomon.measure.record import Level
from gnomon.pipeline._progress import Progress, silent
from gnomon.pipeline.forecasting import forecast_everywhere
from gnomon.pipeline.measuring import capture, measure, this_machine
from gnomon.pipeline.sharpening import sharpen
from gnomon.report import html
from gnomon.report.examination import Examination
from gnomon.spec.lock import write_lock
from gnomon.spec.task import Task
from gnomon.store.store import Store
from gnomon.workload.graph import OpGraph


@dataclass(frozen=True, slots=True)
class Plan:
    """How much work an examination does. recipes None: all that exist; sessions None: as the task's protocol says."""

    levels: tuple[Level, ...] = ("model", "layer", "operator")
    recipes: tuple[str, ...] | None = None
    sessions: int | None = None
    devices: tuple[str, ...] | None = None


def examine(
    task: Task,
    store: Store,
    *,
    plan: Plan | None = None,
    out: Path | None = None,
    command: str = "",
    progress: Progress = silent,
) -> Examination:
    """Measure here, forecast elsewhere, sharpen, report. Everything is stored on the way, under one run.

    out: folder for report.html, the trace and the lock. command: what to type to do this again.
    Raises what the stages raise; the run is then marked failed and what it stored before stays.
    """
    plan = plan or Plan()
    arguments = {"command": command, "levels": list(plan.levels), "out": str(out) if out else None}
    with store.begin("examine", arguments, task=task.name, task_digest=task.digest) as run:
        run.add(task)
        progress("capturing the operator graph")
        graph = capture(task, run)
        progress("measuring this machine's peaks (kept for later runs)")
        machine = this_machine(task.threads, run, progress)
        measurement = measure(task, run, levels=plan.levels, sessions=plan.sessions, progress=progress)
        progress("forecasting on every device of the catalogue")
        forecasts, warnings = forecast_everywhere(task, graph, _devices(plan.devices, machine), run)
        changes, comparison = sharpen(task, run, recipes=plan.recipes, sessions=plan.sessions, progress=progress)
        examination = Examination(
            task=task,
            graph=graph,
            measurement=measurement,
            device=machine,
            forecasts=tuple(forecasts),
            comparison=comparison,
            changes=tuple(changes),
            command=command,
            run_id=run.id,
            gnomon_version=__version__,
            warnings=tuple(warnings),
            memory=_memory(graph),
        )
        if out is not None:
            progress("writing the report")
            write(examination, out)
    return examination


def write(examination: Examination, out: Path) -> Path:
    """report.html, trace.json and task.lock in the folder `out`. Returns the path of the report."""
    from gnomon.report.trace import write_trace

    out.mkdir(parents=True, exist_ok=True)
    write_trace(out / "trace.json", examination.measurement)
    write_lock(examination.task, out / "task.lock", examination.measurement.output_digest)
    return html.write(examination, out / "report.html")


def recall(store: Store, run_id: str) -> Examination:
    """The examination that a stored run of `examine` made, put together again from its records.

    Raises DamagedData when a record that the report needs is not there (the run was broken or failed on the way).
    """
    row = store.run(run_id)

    def one(kind: str) -> Any:
        found = store.load_all(row.id, kind)
        if not found:
            raise DamagedData(f"run {row.id} ({row.status}) holds no {kind}; only a finished examine has a report")
        return found[-1]

    graph = one("opgraph")
    return Examination(
        task=one("task"),
        graph=graph,
        measurement=one("measurement"),
        device=one("device"),
        forecasts=tuple(store.load_all(row.id, "forecast")),
        comparison=next(iter(store.load_all(row.id, "comparison")), None),
        changes=tuple(store.load_all(row.id, "change")),
        command=str(row.arguments.get("command", "")),
        run_id=row.id,
        gnomon_version=row.gnomon_version,
        memory=_memory(graph),
    )


def _devices(names: Sequence[str] | None, machine: Device) -> list[Device]:
    return [machine, *(catalogue.every() if names is None else [catalogue.get(name) for name in names])]


def _memory(graph: OpGraph) -> Mapping[str, float]:
    from gnomon.workload.memory import peak

    profile = peak(graph)
    return {
        "parameters": profile.parameter_bytes,
        "gradients": profile.gradient_bytes,
        "optimizer state": profile.optimizer_bytes,
        "activations": profile.activation_bytes,
        "inputs": profile.input_bytes,
    }
