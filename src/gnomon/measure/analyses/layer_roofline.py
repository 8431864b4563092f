"""A14: layers under the device's roofline."""

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.roofline import ROOF_COLUMNS, place
from gnomon.measure.analyses.rows import layers, roof_notes, under, why_no_layers, work_notes
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "layer-roofline",
    "A14 layers under the roofline",
    "Which layers are limited by arithmetic and which by memory, and how near to the limit are they?",
    (
        Column("index", "count"),
        Column("name", "text"),
        Column("type", "text"),
        Column("seconds", "s", "CPU time where it was measured, else wall time"),
        Column("intensity", "FLOP/B"),
        Column("attained_flop_s", "FLOP/s"),
        *ROOF_COLUMNS,
    ),
    frozenset({"graph", "device"}),
)


def analyze(subject: Subject) -> Analysis:
    """In the order of the model."""
    rows = layers(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_layers(subject))
    notes = work_notes(subject, [row.flop for row in rows])
    if all(row.flop is None or row.moved_bytes is None for row in rows):
        return FORM.cannot(subject.name, notes[0] if notes else "FLOP and bytes are not known")
    one_thread = subject.measurement is not None and subject.measurement.environment.threads == 1
    times = [r.cpu_s if one_thread and r.cpu_s is not None else r.latency_s for r in rows]
    above = under(subject)
    places = [place(r.flop, r.moved_bytes, t, above) for r, t in zip(rows, times, strict=True)]
    return FORM.answer(
        subject.name,
        [
            (r.index, r.path, r.type, t, p.intensity, p.attained_flop_s, *p.cells)
            for r, t, p in zip(rows, times, places, strict=True)
        ],
        [*notes, *roof_notes(subject, places), "the peak is that of matrix products, the highest there is"],
    )
