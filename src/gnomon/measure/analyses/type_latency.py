"""A6: where the time goes by type of layer."""

import math
from collections import defaultdict

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import layers, overlaps, why_no_layers
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "type-latency",
    "A6 latency by layer type",
    "Which types of layer take the time?",
    (
        Column("type", "text"),
        Column("layers", "count"),
        Column("self_s", "s", "sum over the layers, each without the layers inside it"),
        Column("share", "share"),
        Column("mean_s", "s", "per layer"),
    ),
    frozenset(),
)


def analyze(subject: Subject) -> Analysis:
    """Longest first; self times, so that nested layers are not counted twice."""
    rows = layers(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_layers(subject))
    times: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        times[row.type].append(row.self_s)
    total = math.fsum(row.self_s for row in rows)
    sums = sorted(((math.fsum(t), kind) for kind, t in times.items()), key=lambda item: (-item[0], item[1]))
    return FORM.answer(
        subject.name,
        [(kind, len(times[kind]), s, s / total if total else 0.0, s / len(times[kind])) for s, kind in sums],
        [overlaps(subject)],
    )
