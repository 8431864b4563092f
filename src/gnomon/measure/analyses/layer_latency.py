"""A3: where the time goes, layer by layer."""

import math

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import layers, overlaps, why_no_layers
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "layer-latency",
    "A3 latency per layer",
    "Which layers take the time?",
    (
        Column("index", "count"),
        Column("name", "text"),
        Column("type", "text"),
        Column("latency_s", "s", "wall time with all that is inside"),
        Column("cpu_s", "s", "CPU time with all that is inside"),
        Column("self_s", "s", "without the layers inside"),
        Column("share", "share", "of the sum of self_s"),
    ),
    frozenset(),
)


def analyze(subject: Subject) -> Analysis:
    """Longest self time first."""
    rows = layers(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_layers(subject))
    total = math.fsum(row.self_s for row in rows)
    ordered = sorted(rows, key=lambda r: (-r.self_s, r.index))
    clock = "self_s is CPU time" if subject.measurement is not None else "self_s is wall time"
    return FORM.answer(
        subject.name,
        [(r.index, r.path, r.type, r.latency_s, r.cpu_s, r.self_s, r.self_s / total if total else 0.0)
         for r in ordered],
        [clock, overlaps(subject)],
    )  # fmt: skip
