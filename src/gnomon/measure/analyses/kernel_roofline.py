"""A9: kernels, or on a CPU operators, under the device's roofline."""

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.roofline import ROOF_COLUMNS
from gnomon.measure.analyses.rows import kernels, placed, roof_notes, why_no_kernels, work_notes
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "kernel-roofline",
    "A9 kernels under the roofline",
    "Which kernels are limited by arithmetic and which by memory, and how near to the limit are they?",
    (
        Column("name", "text"),
        Column("layer", "text"),
        Column("seconds", "s"),
        Column("flop", "FLOP"),
        Column("moved_bytes", "B"),
        Column("intensity", "FLOP/B"),
        Column("attained_flop_s", "FLOP/s"),
        Column("attained_b_s", "B/s"),
        *ROOF_COLUMNS,
    ),
    frozenset({"graph", "device"}),
)


def analyze(subject: Subject) -> Analysis:
    """Longest first."""
    rows = kernels(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_kernels(subject))
    notes = work_notes(subject, [row.flop for row in rows])
    if all(row.flop is None and row.moved_bytes is None for row in rows):
        return FORM.cannot(subject.name, notes[0] if notes else "FLOP and bytes are not known")
    places = [placed(row, subject) for row in rows]
    unknown = sum(row.flop is None for row in rows)
    notes += [f"FLOP of {unknown} of {len(rows)} rows are not known"] if unknown else []
    return FORM.answer(
        subject.name,
        [
            (k.name, k.layer, k.seconds, k.flop, k.moved_bytes, p.intensity, p.attained_flop_s, p.attained_b_s,
             *p.cells)
            for k, p in zip(rows, places, strict=True)
        ],
        [*notes, *roof_notes(subject, places)],
    )  # fmt: skip
