"""A12: FLOP and memory traffic per layer."""

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import layers, why_no_layers, work_notes
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "layer-work",
    "A12 FLOP and memory traffic per layer",
    "How much arithmetic and memory traffic does each layer ask for?",
    (
        Column("index", "count"),
        Column("name", "text"),
        Column("type", "text"),
        Column("flop", "FLOP", "forward pass, with all that is inside"),
        Column("read_bytes", "B"),
        Column("written_bytes", "B"),
        Column("uncosted", "count", "operators inside that no cost rule knows"),
    ),
    frozenset({"graph"}),
)


def analyze(subject: Subject) -> Analysis:
    """In the order of the model."""
    rows = layers(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_layers(subject))
    notes = work_notes(subject, [row.flop if row.flop is not None else row.read_bytes for row in rows])
    if all(row.flop is None and row.read_bytes is None for row in rows):
        return FORM.cannot(subject.name, notes[0] if notes else "FLOP and bytes are not known")
    return FORM.answer(
        subject.name,
        [(r.index, r.path, r.type, r.flop, r.read_bytes, r.written_bytes, r.uncosted) for r in rows],
        notes,
    )
