"""The kinds of record: which class reads each, and which of its values are copied into columns.

Both tables work on names and plain JSON, so the store imports none of the rooms that define the records.
"""

from collections.abc import Mapping
from typing import Any

from gnomon.core.records import from_json
from gnomon.core.registry import Registry

RECORDS = Registry(
    "kind of record",
    {
        "task": "gnomon.spec.task:Task",
        "task-entry": "gnomon.spec.listing:Entry",
        "lock": "gnomon.spec.lock:Lock",
        "opgraph": "gnomon.workload.graph:OpGraph",
        "graph-diff": "gnomon.workload.diff:GraphDiff",
        "memory-profile": "gnomon.workload.memory:MemoryProfile",
        "measurement": "gnomon.measure.record:Measurement",
        "comparison": "gnomon.measure.record:Comparison",
        "reproduction": "gnomon.measure.reproduction:Reproduction",
        "same-check": "gnomon.measure.same:SameCheck",
        "gate": "gnomon.report.gate:Gate",
        "trace": "gnomon.measure.record:Trace",
        "gcn-characterization": "gnomon.measure.phases.record:GcnCharacterization",
        "scenario-result": "gnomon.measure.scenarios.result:ScenarioResult",
        "qps-search": "gnomon.measure.scenarios.search:QpsSearch",
        "training-result": "gnomon.measure.scenarios.training:TrainingResult",
        "analysis": "gnomon.measure.analyses.analysis:Analysis",
        "unique-operators": "gnomon.measure.unique:UniqueOperators",
        "forecast": "gnomon.forecast.record:Forecast",
        "calibration": "gnomon.forecast.calibration:Calibration",
        "sweep": "gnomon.forecast.sweep:Sweep",
        "evaluation": "gnomon.forecast.evaluate:Evaluation",
        "change": "gnomon.sharpen.record:Change",
        "device": "gnomon.devices.device:Device",
        "break-even": "gnomon.devices.breakeven:BreakEven",
        "host": "gnomon.devices.host:Host",
        "attention-profile": "gnomon.kernels.neighborhood_attention.record:AttentionProfile",
    },
)

TEXTS = ("task", "task_digest", "device", "variant", "verdict")
NUMBERS = ("latency_s", "speedup")
COLUMNS = ("task", "task_digest", "device", "variant", "latency_s", "speedup", "verdict")

# kind -> column -> where the value is in the record. A kind that is not here is stored without such values.
HOT: Mapping[str, Mapping[str, str]] = {
    "task": {"task": "name", "task_digest": "digest", "device": "device"},
    "opgraph": {"task": "name", "variant": "mode"},
    "measurement": {
        "task": "task",
        "task_digest": "task_digest",
        "device": "environment.device",
        "variant": "variant",
        "latency_s": "latency.p50.value",
    },
    "trace": {"task": "name", "variant": "origin"},
    "comparison": {
        "task": "task",
        "task_digest": "task_digest",
        "device": "environment.device",
        "variant": "baseline",
    },
    "scenario-result": {
        "task": "task",
        "task_digest": "task_digest",
        "device": "environment.device",
        "variant": "scenario.name",
        "latency_s": "target.value",
        "verdict": "verdict",
    },
    "qps-search": {
        "task": "task",
        "task_digest": "task_digest",
        "device": "environment.device",
        "variant": "scenario.name",
        "verdict": "outcome",
    },
    "training-result": {
        "task": "task",
        "task_digest": "task_digest",
        "device": "environment.device",
        "variant": "scenario.name",
        "latency_s": "step_s.p50",
        "verdict": "outcome",
    },
    "unique-operators": {"task": "task", "task_digest": "task_digest", "device": "machine", "latency_s": "step_s"},
    "same-check": {"task": "task", "task_digest": "task_digest", "variant": "pairs"},
    "gate": {"task": "task", "variant": "candidate", "verdict": "verdict"},
    "forecast": {"task": "task", "device": "device", "variant": "predictor", "latency_s": "total.value_s"},
    "sweep": {"task": "task", "variant": "predictor"},
    "evaluation": {"variant": "predictor"},
    "change": {
        "task": "task",
        "task_digest": "task_digest",
        "variant": "recipe",
        "speedup": "speedup.speedup.value",
        "verdict": "verdict",
    },
    "reproduction": {"task": "task", "task_digest": "task_digest", "verdict": "verdict"},
    "calibration": {"device": "device.name", "variant": "predictor"},
    "gcn-characterization": {"device": "device.name", "variant": "profile"},
    "device": {"device": "name"},
    "break-even": {"device": "device", "variant": "kind"},
    "host": {"device": "cpu"},
    "attention-profile": {"device": "device"},
}


def hot(document: Mapping[str, Any]) -> dict[str, str | float | None]:
    """The values of a record's JSON that become columns; None for what the kind or this record does not have."""
    places = HOT.get(kind_of(document), {})
    values: dict[str, str | float | None] = {}
    for column in COLUMNS:
        value: Any = document if column in places else None
        for key in places.get(column, "").split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        wanted: type | tuple[type, ...] = str if column in TEXTS else (int, float)
        fits = isinstance(value, wanted) and not isinstance(value, bool)
        values[column] = (value if column in TEXTS else float(value)) if fits else None
    return values


def kind_of(document: Mapping[str, Any]) -> str:
    """'measurement' of a document whose schema is 'gnomon/measurement/1'."""
    return str(document["schema"]).split("/")[1]


def read(document: Mapping[str, Any]) -> Any:
    """The record that was written as `document`. Raises DamagedData when no class fits it."""
    kind = kind_of(document)
    return from_json(document, RECORDS.get(kind) if kind in RECORDS else None)
