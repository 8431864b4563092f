"""A4: where memory is allocated, layer by layer."""

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import layers, why_no_layers
from gnomon.measure.analyses.subject import NO_GRAPH, Subject

NOTE = "allocations of the captured graph's forward pass, views and in-place results not counted; memory is reused"

FORM = Form(
    "layer-memory",
    "A4 memory per layer",
    "Which layers allocate the memory?",
    (
        Column("index", "count"),
        Column("name", "text"),
        Column("type", "text"),
        Column("allocated_bytes", "B", "by operators inside, forward pass"),
    ),
    frozenset({"graph"}),
)


def analyze(subject: Subject) -> Analysis:
    """Largest first."""
    rows = layers(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_layers(subject))
    known = [row for row in rows if row.allocated_bytes is not None]
    if not known:
        return FORM.cannot(subject.name, why_no_memory(subject))
    ordered = sorted(known, key=lambda r: (-(r.allocated_bytes or 0.0), r.index))
    notes = [NOTE] if subject.trace is None else [f"{len(rows) - len(known)} of {len(rows)} layers do not tell"]
    return FORM.answer(subject.name, [(r.index, r.path, r.type, r.allocated_bytes) for r in ordered], notes)


def why_no_memory(subject: Subject) -> str:
    """Why it is not known what layers allocate."""
    if subject.trace is not None:
        return "the spans do not tell what was allocated (no attribute allocated_bytes)"
    if subject.graph is not None:
        return "the operator graph was not captured with the life of its storages; capture it again with --complete"
    return subject.why_no("graph", NO_GRAPH)
