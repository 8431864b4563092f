"""A8: kernels, or on a CPU operators, each with its layer."""

import math

from gnomon.measure.analyses import join
from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import kernels, layer_of, why_no_kernels
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "kernels",
    "A8 kernels",
    "Which kernels (on a CPU: operators) run, in which layer, and how long?",
    (
        Column("name", "text"),
        Column("what", "text", "kernel or operator"),
        Column("layer", "text"),
        Column("shapes", "text", "of the inputs"),
        Column("calls", "count", "per step"),
        Column("seconds", "s", "of all calls of a step"),
        Column("share", "share"),
        Column("library", "text", "what the operator calls below it, where the kernel level was measured on a CPU"),
        Column("occupancy", "share", "of the device's warps, weighted by duration"),
    ),
    frozenset(),
)


def analyze(subject: Subject) -> Analysis:
    """Longest first."""
    rows = kernels(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_kernels(subject))
    called = _libraries(subject)
    total = math.fsum(row.seconds for row in rows)
    notes = ["there are no kernels below the operators of a CPU"] if rows[0].what == "operator" else []
    return FORM.answer(
        subject.name,
        [
            (r.name, r.what, r.layer, r.shapes, r.calls, r.seconds, r.seconds / total if total else 0.0,
             called.get((r.name, r.layer)), r.occupancy)
            for r in rows
        ],
        notes,
    )  # fmt: skip


def _libraries(subject: Subject) -> dict[tuple[str, str], str]:
    """(operator, layer) -> the library calls inside, each once."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for i, span in enumerate(subject.spans):
        if "library" in span.attributes and span.parent is not None:
            name = join.base_name(subject.spans[span.parent].name)
            found.setdefault((name, layer_of(subject.spans, i)), {})[span.name] = None
    return {key: ", ".join(names) for key, names in found.items()}
