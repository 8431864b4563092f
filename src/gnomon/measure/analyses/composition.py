"""Composition: is the model's time the sum of its unique pieces? DLBricks, Li et al. 2020, arXiv 1911.07967."""

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.subject import Subject

WITHIN = 0.10
NO_UNIQUE = "unique operators were not measured alone; --complete does"

FORM = Form(
    "composition",
    "composition of unique pieces",
    "Does the sum of the model's unique pieces predict its time, and how much less must be measured?",
    (
        Column("length", "count", "operators in a piece"),
        Column("pieces", "count"),
        Column("unique", "count"),
        Column("predicted_s", "s", "sum over all pieces, each kind measured once"),
        Column("step_s", "s", "measured whole, in the same process"),
        Column("error", "share", "predicted over measured, less 1"),
        Column("within", "bool", f"error within {WITHIN:.0%}"),
        Column("saved", "x", "time of a step over one call of each unique piece"),
    ),
    frozenset({"unique"}),
)


def analyze(subject: Subject) -> Analysis:
    """One row per length of the pieces."""
    unique = subject.unique
    if unique is None:
        return FORM.cannot(subject.name, subject.why_no("unique", NO_UNIQUE))
    rows, notes = [], []
    for one in unique.compositions:
        error = one.predicted_s / one.step_s - 1 if one.predicted_s is not None and one.step_s > 0 else None
        saved = one.step_s / one.measured_s if one.measured_s > 0 else None
        rows.append(
            (one.length, one.pieces, one.unique, one.predicted_s, one.step_s, error,
             abs(error) <= WITHIN if error is not None else None, saved)
        )  # fmt: skip
        notes += [f"length {one.length}: {failure}" for failure in one.failures[:3]]
    notes.append(
        f"{unique.clock} time, {unique.threads} thread{'s' if unique.threads != 1 else ''}; what lies between the "
        "operators (Python of the modules) is in no piece, so a small model is predicted too fast"
    )
    return FORM.answer(subject.name, rows, notes)
