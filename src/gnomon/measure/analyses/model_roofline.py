"""A15: the model as a whole, and where it lies under the device's roofline."""

import math

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.roofline import ROOF_COLUMNS, place
from gnomon.measure.analyses.rows import kernels, model_s, roof_notes, under, why_no_layers, work_notes
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "model-roofline",
    "A15 the model under the roofline",
    "Is the model limited by arithmetic or by memory, and how far from the limit is it?",
    (
        Column("latency_s", "s", "untraced; CPU time with one thread on a CPU, else wall time"),
        Column("flop", "FLOP", "of a whole step"),
        Column("read_bytes", "B"),
        Column("written_bytes", "B"),
        Column("intensity", "FLOP/B"),
        Column("ridge", "FLOP/B", "peak over bandwidth"),
        Column("attained_flop_s", "FLOP/s"),
        *ROOF_COLUMNS,
    ),
    frozenset({"graph", "device"}),
)


def analyze(subject: Subject) -> Analysis:
    """One row."""
    seconds = _seconds(subject)
    if not seconds:
        return FORM.cannot(subject.name, why_no_layers(subject))
    flop, read, written, notes = _work(subject)
    notes += work_notes(subject, [flop])
    if flop is None and read is None:
        return FORM.cannot(subject.name, notes[0] if notes else "FLOP and bytes are not known")
    above = under(subject)
    moved = read + written if read is not None and written is not None else None
    p = place(flop, moved, seconds, above)
    row = (seconds, flop, read, written, p.intensity, above.ridge if above else None, p.attained_flop_s,
           *p.cells)  # fmt: skip
    return FORM.answer(subject.name, [row], [*notes, *roof_notes(subject, [p])])


def _seconds(subject: Subject) -> float | None:
    m = subject.measurement
    if m is not None and m.environment.device == "cpu" and m.environment.threads == 1 and "p50" in m.cpu_latency:
        return m.cpu_latency["p50"].value
    return model_s(subject)


def _work(subject: Subject) -> tuple[float | None, float | None, float | None, list[str]]:
    """FLOP, bytes read and written of a step, and remarks: of the graph, else the sum over a trace's kernels."""
    graph = subject.graph
    if graph is not None:
        unknown = graph.unknown
        notes = [f"no cost rule, not counted: {', '.join(unknown)}"] if unknown else []
        return (
            graph.flop,
            math.fsum(o.read_bytes for o in graph.ops),
            math.fsum(o.written_bytes for o in graph.ops),
            notes,
        )
    rows = kernels(subject)
    sums = []
    for name in ("flop", "read_bytes", "written_bytes"):
        known = [getattr(row, name) for row in rows if getattr(row, name) is not None]
        sums.append(math.fsum(known) if known else None)
    told = sum(row.flop is not None for row in rows)
    notes = [f"{told} of {len(rows)} kernels tell their FLOP"] if 0 < told < len(rows) else []
    return sums[0], sums[1], sums[2], notes
