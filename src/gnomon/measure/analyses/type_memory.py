"""A7: where memory is allocated by type of layer."""

from collections import defaultdict

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.layer_memory import NOTE, why_no_memory
from gnomon.measure.analyses.rows import layers, why_no_layers
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "type-memory",
    "A7 memory by layer type",
    "Which types of layer allocate the memory?",
    (
        Column("type", "text"),
        Column("layers", "count"),
        Column("allocated_bytes", "B", "each layer without the layers inside it"),
        Column("share", "share"),
    ),
    frozenset({"graph"}),
)


def analyze(subject: Subject) -> Analysis:
    """Largest first; what a layer's inner layers allocate counts for these alone."""
    rows = layers(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_layers(subject))
    if all(row.allocated_bytes is None for row in rows):
        return FORM.cannot(subject.name, why_no_memory(subject))
    inner: dict[int, float] = defaultdict(float)
    for row in rows:
        inner[row.parent] += row.allocated_bytes or 0.0
    own: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.allocated_bytes is not None:  # a trace may tell of a layer less than of those inside it
            own[row.type].append(max(row.allocated_bytes - inner[row.index], 0.0))
    total = sum(map(sum, own.values()))
    ordered = sorted(((sum(sizes), kind) for kind, sizes in own.items()), key=lambda item: (-item[0], item[1]))
    return FORM.answer(
        subject.name,
        [(kind, len(own[kind]), size, size / total if total else 0.0) for size, kind in ordered],
        [NOTE] if subject.trace is None else [],
    )
