"""Cold start: what a fresh process pays before its first answer, apart from inference (TrIMS, arXiv 1811.09732)."""

import statistics

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "cold-start",
    "cold start",
    "What does a fresh process pay before it answers, and for what?",
    (
        Column("part", "text"),
        Column("seconds", "s", "median over sessions"),
        Column("least_s", "s"),
        Column("most_s", "s"),
        Column("calls", "x", "how many warm calls it is worth"),
        Column("saved_by", "text"),
    ),
    frozenset(),
)

_PARTS = (
    ("import", "import_s", "a process that stays: libraries are loaded once"),
    ("build and load", "build_s", "weights shared between processes, or kept in one: what TrIMS saves"),
    ("first call", "first_call_s", "a call before the first request: allocation, packing of weights, compilation"),
)


def analyze(subject: Subject) -> Analysis:
    """Import, build (with loading of weights), first call, what of it a warm call would not take, and the sum."""
    measurement = subject.measurement
    if measurement is None:
        return FORM.cannot(subject.name, "a trace does not hold what came before it; measure the task with gnomon run")
    run = next((run for run in measurement.levels if run.level == "model"), None)
    sessions = [s for s in run.sessions if s.wall_s] if run is not None else []
    if not sessions:
        return FORM.cannot(subject.name, "no untraced session is stored")
    warm = [statistics.median(session.wall_s) for session in sessions]
    call = statistics.median(warm)
    columns = {name: [float(getattr(s, key)) for s in sessions] for name, key, _ in _PARTS}
    hints = {name: hint for name, _, hint in _PARTS}
    extra = [s.first_call_s - one for s, one in zip(sessions, warm, strict=True)]
    columns["of it more than a warm call"] = extra
    columns["all, to the first answer"] = [s.import_s + s.build_s + s.first_call_s for s in sessions]
    rows = [
        (name, statistics.median(v), min(v), max(v), statistics.median(v) / call if call > 0 else None,
         hints.get(name, ""))
        for name, v in columns.items()
    ]  # fmt: skip
    notes = [f"medians over {len(sessions)} session{'s' if len(sessions) > 1 else ''}, each a fresh process"]
    if statistics.median(extra) < 0:
        notes.append("the first call was faster than a warm one: nothing is compiled or packed at the first call")
    return FORM.answer(subject.name, rows, notes)
