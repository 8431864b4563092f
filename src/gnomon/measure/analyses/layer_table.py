"""A2: the layers of a model in their order."""

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import layers, overlaps, told_shape, why_no_layers
from gnomon.measure.analyses.subject import NO_GRAPH, Subject

FORM = Form(
    "layers",
    "A2 layers",
    "Which layers does the model have, in which order, and what does each take?",
    (
        Column("index", "count", "0 is the model itself and is left out"),
        Column("name", "text"),
        Column("type", "text"),
        Column("shape", "text", "of the first output"),
        Column("calls", "count", "per step"),
        Column("latency_s", "s", "wall time with all that is inside"),
        Column("allocated_bytes", "B", "by operators inside, forward pass"),
    ),
    frozenset({"graph"}),
)


def analyze(subject: Subject) -> Analysis:
    """One row per layer."""
    rows = layers(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_layers(subject))
    notes = [overlaps(subject)]
    if all(row.allocated_bytes is None for row in rows):
        lacks = "the spans do not tell what was allocated" if subject.trace else subject.why_no("graph", NO_GRAPH)
        notes.append(f"allocated bytes are not known: {lacks}")
    return FORM.answer(
        subject.name,
        [(r.index, r.path, r.type, told_shape(r.shape), r.calls, r.latency_s, r.allocated_bytes) for r in rows],
        notes,
    )
