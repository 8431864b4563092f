"""A5: how many layers there are of each type."""

from collections import Counter

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import layers, why_no_layers
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "layer-types",
    "A5 layers by type",
    "Of which types are the layers?",
    (
        Column("type", "text"),
        Column("layers", "count"),
        Column("calls", "count", "per step"),
        Column("share", "share", "of the layers"),
    ),
    frozenset(),
)


def analyze(subject: Subject) -> Analysis:
    """Most frequent first."""
    rows = layers(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_layers(subject))
    count = Counter(row.type for row in rows)
    calls = {kind: sum(row.calls for row in rows if row.type == kind) for kind in count}
    ordered = sorted(count.items(), key=lambda item: (-item[1], item[0]))
    return FORM.answer(subject.name, [(kind, n, calls[kind], n / len(rows)) for kind, n in ordered])
