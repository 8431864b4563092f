"""A13: time of the device against time of the host, layer by layer."""

import math
from collections import defaultdict

from gnomon.measure.analyses import join
from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import layer_of, layers, model_s, on_device, steps, why_no_layers
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "device-time",
    "A13 device and host time per layer",
    "How much of each layer's time does the device work, and how much only the host?",
    (
        Column("index", "count", "0 is the whole model, its layers are not added up"),
        Column("name", "text"),
        Column("type", "text"),
        Column("latency_s", "s"),
        Column("device_s", "s", "sum of the kernels inside"),
        Column("host_s", "s", "the rest, where only the host worked"),
        Column("device_share", "share"),
    ),
    frozenset(),
)


def analyze(subject: Subject) -> Analysis:
    """The model, then its layers in their order."""
    ran = [i for i, span in enumerate(subject.spans) if on_device(span)]
    if not ran:
        return FORM.cannot(subject.name, _why_not(subject))
    n = steps(subject)
    kernels_of: dict[str, list[float]] = defaultdict(list)
    for i in ran:
        for path in join.around(layer_of(subject.spans, i)):
            kernels_of[path].append(subject.spans[i].wall_s)
    device = {path: math.fsum(times) / n for path, times in kernels_of.items()}
    whole = model_s(subject)
    table = [(0, "(model)", "", whole, device[""], _rest(whole, device[""]), _share(whole, device[""]))]
    for row in layers(subject):
        worked = device.get(row.path, 0.0)
        rest, share = _rest(row.latency_s, worked), _share(row.latency_s, worked)
        table.append((row.index, row.path, row.type, row.latency_s, worked, rest, share))
    behind = sum(row[4] > (row[3] or 0.0) for row in table)
    notes = []
    if behind:
        notes.append(f"in {behind} rows kernels take longer than the layer: they run behind the host, or side by side")
    if len(table) == 1:
        notes.append(f"no layers to lay kernels to: {why_no_layers(subject)}")
    return FORM.answer(subject.name, table, notes)


def _rest(whole: float | None, device: float) -> float | None:
    return None if whole is None else max(whole - device, 0.0)


def _share(whole: float | None, device: float) -> float | None:
    return min(device / whole, 1.0) if whole else None


def _why_not(subject: Subject) -> str:
    if subject.measurement is None:
        return f"the trace {subject.name!r} holds no spans of the kernel level, so no time of a device"
    said = next((w for w in subject.measurement.warnings if "'kernel' is not available" in w), "")
    if subject.measurement.environment.device == "cpu":
        return said or "the task ran on the CPU, where host and device are one: all of its time is host time"
    return said or "the kernel level was not measured: gnomon run TASK --level kernel"
