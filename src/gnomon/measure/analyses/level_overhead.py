"""What looking deeper costs: each level's own run beside the untraced one (XSP, arXiv 1908.06869)."""

import statistics

from gnomon.measure.analyses.analysis import Analysis, Cell, Column, Form
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "level-overhead",
    "overhead of the levels",
    "How much does tracing each level slow the model down?",
    (
        Column("level", "text"),
        Column("sessions", "count"),
        Column("calls", "count", "of all sessions"),
        Column("latency_s", "s", "median call of the level's own run"),
        Column("overhead", "share", "of the untraced call; median over pairs of a traced and an untraced call"),
        Column("overhead_low", "share"),
        Column("overhead_high", "share"),
        Column("slower_by_s", "s", "the same in seconds of the untraced latency"),
        Column("spans", "count", "of this level, per step"),
    ),
    frozenset(),
)


def analyze(subject: Subject) -> Analysis:
    """One row per level that was run, the untraced first; what a level says is never read from a deeper run."""
    measurement = subject.measurement
    if measurement is None:
        return FORM.cannot(subject.name, "a trace is one run of unknown overhead; measure the task with gnomon run")
    rows: list[tuple[Cell, ...]] = []
    untraced = measurement.latency.get("p50")
    for run in measurement.levels:
        calls = [t for session in run.sessions for t in session.wall_s]
        spans = sum(span.level == run.level for span in subject.spans)
        over = run.overhead
        rows.append(
            (run.level, len(run.sessions), len(calls), statistics.median(calls) if calls else None,
             over.value if over else None, over.low if over else None, over.high if over else None,
             over.value * untraced.value if over and untraced else None, spans)
        )  # fmt: skip
    notes = [w for w in measurement.warnings if "is not available" in w]
    if len(rows) == 1:
        notes.append("only the untraced run is stored; gnomon run TASK --level layer --level operator looks deeper")
    return FORM.answer(subject.name, rows, notes)
